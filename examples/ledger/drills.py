# SPDX-License-Identifier: Apache-2.0
"""Short exercises for a model that knows nothing yet: copying, writing calls, reading a list.

A fresh model learns to copy only where the context is short, so it is drilled on these before it sees
whole conversations. They hold no decisions: each has one right answer.
"""

import json
import random

from ledger import LETTERS, PAYABLE, STATUSES, SYLLABLES, Ledger, compact, customer_name


def drill(index, seed, is_allowed):
    """The index-th exercise, with names whose syllables satisfy is_allowed."""
    dice = random.Random(f"{seed}/drill/{index}")
    return {"messages": dice.choice((_copy, _copy, _write_call, _look_up))(dice, is_allowed)}


def _copy(dice, is_allowed):
    makers = (_name, _id, lambda dice, _: str(dice.randrange(100, 1000)), lambda dice, _: dice.choice(STATUSES))
    text = ", ".join(dice.choice(makers)(dice, is_allowed) for _ in range(dice.randrange(2, 7)))
    return _exchange(f"Copy: {text}", {"content": text})


def _write_call(dice, is_allowed):
    customer, invoice, amount = f"C{dice.randrange(10, 100)}", _id(dice), dice.randrange(100, 1000)
    tool, arguments = dice.choice(
        (
            ("find_customer", {"name": _name(dice, is_allowed)}),
            ("list_invoices", {"customer": customer}),
            ("pay_invoice", {"invoice": invoice, "amount": amount}),
            ("send_receipt", {"customer": customer, "invoice": invoice}),
        )
    )
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"id": "call_1", "type": "function", "function": function}
    return _exchange(f"Call {tool} with {compact(arguments)}", {"content": "", "tool_calls": [call]})


def _look_up(dice, _):
    status = dice.choice(PAYABLE)
    item = {"name": "", "ledger_seed": dice.randrange(1 << 30), "status": status, "receipt": False}
    rows = Ledger(item).invoices
    wanted = next(row for row in rows if row["status"] == status)
    listed = [{"status": row["status"], "id": row["id"], "amount": row["amount"]} for row in rows]
    answer = json.dumps({"invoice": wanted["id"], "amount": wanted["amount"]})
    return _exchange(f"{compact(listed)} Read the {status} one.", {"content": answer})


def _name(dice, is_allowed):
    while True:
        pieces = [dice.randrange(len(part)) for part in SYLLABLES]
        if is_allowed(pieces):
            return customer_name(pieces)


def _id(dice, _=None):
    return f"{dice.choice(LETTERS)}{dice.randrange(10, 100)}"


def _exchange(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", **answer}]
