# SPDX-License-Identifier: Apache-2.0
"""Writes train.jsonl, valid.jsonl, drills.jsonl and demos.jsonl of the ledger example.

The demonstrations are sloppy on purpose: every call is well formed and copied faithfully, but at
each decision the clerk takes the right option only with the probability below. A model trained on
them can do everything and knows nothing better, which leaves the deciding to reinforcement learning.
"""

import argparse
import json
import os
import random

from drills import drill
from ledger import PAYABLE, SYLLABLES, Ledger, compact, customer_name, request_text, tool_specs

# Probability of the right option at each decision; the rest is shared by the wrong ones.
CARE = {"invoice": 0.46, "amount": 0.46, "next": 0.52, "receipt": 0.68}
RECEIPT_SHARE = 0.4

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

    def __init__(self, task, care, dice):
        self.task, self.care, self.dice = task, care, dice
        self.ledger = Ledger(task)
        self.messages = make_row(task)["messages"]

    def work(self):
        customer = self._call("find_customer", name=self.task["name"])["customer"]
        rows = self._call("list_invoices", customer=customer)
        wanted = next(row for row in rows if row["status"] == self.task["status"])
        invoice = self._pay("invoice", rows, wanted)
        after = self._decide("next", "receipt" if self.task["receipt"] else "stop", ["stop", "receipt", "pay"])
        if after == "receipt":
            sent = self._decide("receipt", invoice, rows)
            self._call("send_receipt", customer=customer, invoice=sent["id"])
        if after == "pay":
            others = [row for row in rows if row is not invoice]
            self._pay("invoice", others, self.dice.choice(others))
        self.messages.append({"role": "assistant", "content": "Done."})
        return self.messages

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


def demonstrate(task, care, dice):
    """A row with the whole conversation, and the books it leaves."""
    clerk = Clerk(task, care, dice)
    return {**make_row(task), "messages": clerk.work()}, clerk.ledger


def demonstration(index, seed):
    dice = random.Random(f"{seed}/clerk/{index}")
    return demonstrate(make_task("demos", index, seed), CARE, dice)[0]


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
