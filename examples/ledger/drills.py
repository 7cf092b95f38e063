# SPDX-License-Identifier: Apache-2.0
"""Short exercises for a model that knows nothing yet: copying, writing calls, reading a list.

A fresh model learns to copy only where the context is short, so it is drilled on these before it sees
whole conversations. They hold no decisions: each has one right answer.
"""

import json
import random

from ledger import LETTERS, PAYABLE, STATUSES, SYLLABLES, Ledger, answer_text, compact, customer_name


def drill(index, seed, is_allowed):
    """The index-th exercise, with names whose syllables satisfy is_allowed."""
    dice = random.Random(f"{seed}/drill/{index}")
    return {"messages": dice.choice((_copy, _copy, _write_call, _look_up, _look_up, _look_up_by_tool))(dice, is_allowed)}


def _copy(dice, is_allowed):
    makers = (_name, _id, lambda dice, _: str(dice.randrange(100, 1000)), lambda dice, _: dice.choice(STATUSES))
    text = ", ".join(dice.choice(makers)(dice, is_allowed) for _ in range(dice.randrange(2, 7)))
    return _answering(f"Copy: {text}", text)


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
    return [
        {"role": "user", "content": f"Call {tool} with {compact(arguments)}"},
        _calling(tool, arguments),
    ]


def _look_up(dice, _):
    item = _item(dice)
    rows = compact(Ledger(item).list_all())
    return _answering(f"Read the {item['status']} invoice of {rows}", answer_text(item))


def _look_up_by_tool(dice, _):
    item = _item(dice)
    ledger = Ledger(item)
    return [
        {"role": "user", "content": f"Read the {item['status']} invoice of {ledger.customer}."},
        _calling("list_invoices", {"customer": ledger.customer}),
        {"role": "tool", "tool_call_id": "call_1", "content": compact(ledger.list_all())},
        {"role": "assistant", "content": answer_text(item)},
    ]


def _item(dice):
    return {"name": "", "ledger_seed": dice.randrange(1 << 30), "status": dice.choice(PAYABLE), "receipt": False}


def _calling(tool, arguments):
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _name(dice, is_allowed):
    while True:
        pieces = [dice.randrange(len(part)) for part in SYLLABLES]
        if is_allowed(pieces):
            return customer_name(pieces)


def _id(dice, _=None):
    return f"{dice.choice(LETTERS)}{dice.randrange(10, 100)}"


def _answering(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
