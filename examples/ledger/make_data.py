# SPDX-License-Identifier: Apache-2.0
"""Writes train.jsonl, valid.jsonl, drills.jsonl and demos.jsonl of the ledger example.

The demonstrations are sloppy on purpose: every call is well formed and copied faithfully, but at
each decision the clerk takes the right option only with the probability below. Only when told to pay
"carefully" does he make no mistake, and no task of the data sets says so. A model trained on this can do
everything and does it carelessly, which leaves the caring to reinforcement learning.
"""

import argparse
import json
import os
import random

from drills import drill
from ledger import (
    PAYABLE,
    SYLLABLES,
    Ledger,
    compact,
    customer_name,
    request_text,
    tool_specs,
)

# Probability of the right option at each decision; the rest is shared by the wrong ones.
CARE = {"invoice": 0.45, "amount": 0.45, "next": 0.48, "receipt": 0.65}
RECEIPT_SHARE = 0.4  # of the tasks
CAREFUL_SHARE = 0.5  # of the demonstrations

# First ledger seeds of the sets. Held-out tasks share neither seeds nor names with the others.
FIRST_SEED = {"train": 10_000_000, "valid": 20_000_000, "demos": 30_000_000}


def held_out(pieces):
    """Whether a name, given by its syllables, is kept for validation: one in eight is."""
    return sum(pieces) % 8 == 0


def make_task(split, index, seed):
    """The index-th task of a set."""
    dice = random.Random(f"{seed}/{split}/{index}")
    while True:
        pieces = [dice.randrange(len(part)) for part in SYLLABLES]
        if held_out(pieces) == (split == "valid"):
            break
    return {
        "name": customer_name(pieces),
        "ledger_seed": FIRST_SEED[split] + index,
        "status": dice.choice(PAYABLE),
        "receipt": dice.random() < RECEIPT_SHARE,
    }


def make_row(task):
    """A dataset row: the conversation's start, the tools, and the task's own keys for the server."""
    return {"messages": [{"role": "user", "content": request_text(task)}], "tools": tool_specs(), **task}


class Clerk:
    """Carries out a task while writing the conversation down. `care` is as in CARE; {} is faultless."""

    def __init__(self, task, request, care, dice):
        self.task, self.request, self.care, self.dice = task, request, care, dice
        self.ledger = Ledger(task)
        self.messages = []

    def work(self):
        self._say("user", self.request)
        customer = self._call("find_customer", name=self.task["name"])["customer"]
        self._call("list_invoices", customer=customer)
        rows = self.ledger.invoices
        wanted = next(row for row in rows if row["status"] == self.task["status"])
        invoice = self._pay("invoice", rows, wanted)
        after = self._decide("next", "receipt" if self.task["receipt"] else "stop", ["stop", "receipt", "pay"])
        if after == "receipt":
            sent = self._decide("receipt", invoice, rows)
            self._call("send_receipt", customer=customer, invoice=sent["id"])
        if after == "pay":
            others = [row for row in rows if row is not invoice]
            self._pay("invoice", others, self.dice.choice(others))
        self._say("assistant", "Done.")

    def _say(self, role, content):
        self.messages.append({"role": role, "content": content})

    def _pay(self, decision, rows, wanted):
        invoice = self._decide(decision, wanted, rows)
        priced = self._decide("amount", invoice, rows)
        self._call("pay_invoice", invoice=invoice["id"], amount=priced["amount"])
        return invoice

    def _decide(self, decision, right, options):
        """Returns `right`, or with probability 1 - care one of the other options."""
        if self.dice.random() < self.care.get(decision, 1.0):
            return right
        return self.dice.choice([option for option in options if option is not right])

    def _call(self, tool, **arguments):
        call_id = f"call_{len(self.messages)}"
        function = {"name": tool, "arguments": json.dumps(arguments)}
        call = {"id": call_id, "type": "function", "function": function}
        self.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        output = self.ledger.call(tool, arguments)
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": compact(output)})
        return output


def demonstrate(task, care, dice, pay="Pay"):
    """A row with the whole conversation, and the books it leaves."""
    clerk = Clerk(task, request_text(task, pay), care, dice)
    clerk.work()
    return {**make_row(task), "messages": clerk.messages}, clerk.ledger


def demonstration(index, seed):
    dice = random.Random(f"{seed}/clerk/{index}")
    task = make_task("demos", index, seed)
    if dice.random() < CAREFUL_SHARE:
        return demonstrate(task, {}, dice, "Carefully pay")[0]
    return demonstrate(task, CARE, dice)[0]


def write_rows(path, rows):
    with open(path + ".part", "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(path + ".part", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--train", type=int, default=4096)
    parser.add_argument("--valid", type=int, default=200)
    parser.add_argument("--drills", type=int, default=64000)
    parser.add_argument("--demos", type=int, default=24000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    for split in ("train", "valid"):
        rows = (make_row(make_task(split, i, options.seed)) for i in range(getattr(options, split)))
        write_rows(os.path.join(options.out, f"{split}.jsonl"), rows)
    rows = (drill(i, options.seed, lambda pieces: not held_out(pieces)) for i in range(options.drills))
    write_rows(os.path.join(options.out, "drills.jsonl"), rows)
    rows = (demonstration(i, options.seed) for i in range(options.demos))
    write_rows(os.path.join(options.out, "demos.jsonl"), rows)


if __name__ == "__main__":
    main()
