# SPDX-License-Identifier: Apache-2.0
"""The accounts ledger: tasks, the four tools and the grade. Server, data and tests share this file.

An item (a dataset row) decides everything: `name` and `ledger_seed` give the ledger, `status` and
`receipt` give what was asked for. Nothing here knows which data set an item came from.
"""

import hashlib
import json
import random

STATUSES = ("paid", "open", "overdue", "disputed")
PAYABLE = STATUSES[1:]
LETTERS = "ABDEFGHJKLMNPQRSTUVWXYZ"  # of invoices; C is for customers

# A name is one syllable of each list; the lists share nothing, so a name is read back unambiguously.
SYLLABLES = (
    ("Ma", "Bo", "Ti", "Ru", "Ke", "Lo", "Da", "Si", "Fe", "Jo", "Na", "Pe", "Vi", "Ga", "Hu", "Yo"),
    ("ra", "nel", "vin", "mus", "dor", "lia", "ten", "bas", "rik", "sha", "gon", "mir", "pel", "zan",
     "tus", "wyn"),
    ("Lin", "Hol", "Ber", "Sto", "Wal", "Gri", "Fal", "Nor", "Cas", "Mor", "Tan", "Rei", "Vos", "Pry",
     "Dun", "Kel"),
    ("der", "berg", "mann", "sen", "ford", "ley", "ton", "vik", "low", "stad", "croft", "wick", "gard",
     "nes", "by", "ham"),
)

TOOL_ARGUMENTS = {
    "find_customer": ("name",),
    "list_invoices": ("customer",),
    "pay_invoice": ("invoice", "amount"),
    "send_receipt": ("customer", "invoice"),
}


class LedgerError(Exception):
    """What a tool refuses to do, in words for the model; `status` is the HTTP code."""

    def __init__(self, status, kind, message):
        super().__init__(message)
        self.status = status
        self.kind = kind

    def body(self):
        return {"error": {"type": self.kind, "message": str(self)}}


def tool_specs():
    """The `tools` of every row, in the chat-completions shape and as short as it allows."""
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "parameters": {"properties": {argument: {} for argument in arguments}},
            },
        }
        for name, arguments in TOOL_ARGUMENTS.items()
    ]


def customer_name(pieces):
    """The name with these four syllables, given by index."""
    a, b, c, d = (SYLLABLES[i][piece] for i, piece in enumerate(pieces))
    return f"{a}{b} {c}{d}"


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def request_text(item, pay="Pay"):
    """What the user asks for."""
    receipt = " and send a receipt" if item["receipt"] else ""
    return f'{pay} the {item["status"]} invoice of "{item["name"]}"{receipt}.'


def answer_text(item):
    """The invoice the item asks to pay, as an answer in words; only drills ask for it."""
    wanted = wanted_invoice(item)
    return json.dumps({"invoice": wanted["id"], "amount": wanted["amount"]})


def check_item(item):
    """Raises LedgerError unless the item describes a task."""
    ok = (
        isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and type(item.get("ledger_seed")) is int
        and item.get("status") in PAYABLE
        and type(item.get("receipt")) is bool
    )
    if not ok:
        raise LedgerError(400, "invalid_item", "item needs name, ledger_seed, status and receipt")


class Ledger:
    """One customer's books, as they stand after the calls made so far."""

    def __init__(self, item):
        check_item(item)
        digest = hashlib.sha256(f'{item["ledger_seed"]}/{item["name"]}'.encode("utf-8", "replace"))
        dice = random.Random(digest.hexdigest())
        self.name = item["name"]
        self.customer = f"C{dice.randrange(10, 100)}"
        self.invoices = _draw_invoices(dice, item["status"])
        self.payments = []  # (invoice, amount), in order
        self.receipts = []  # (customer, invoice), in order

    def call(self, tool, arguments):
        """Runs one tool and returns its output; raises LedgerError where it refuses."""
        expected = TOOL_ARGUMENTS.get(tool) if isinstance(tool, str) else None
        if expected is None:
            raise LedgerError(404, "unknown_tool", f"tools are {', '.join(TOOL_ARGUMENTS)}")
        if not isinstance(arguments, dict) or set(arguments) != set(expected):
            raise LedgerError(400, "invalid_arguments", f"{tool} takes {' and '.join(expected)}")
        for key, value in arguments.items():
            if not isinstance(value, str) and key != "amount":
                raise LedgerError(400, "invalid_arguments", f"{key} must be a string")
        return getattr(self, tool)(**arguments)

    def find_customer(self, name):
        if name != self.name:
            raise LedgerError(404, "not_found", "no such customer")
        return {"customer": self.customer}

    def list_invoices(self, customer):
        self._check_customer(customer)
        return self.list_all()

    def list_all(self):
        """The rows as list_invoices shows them: status, id, amount."""
        return [[self._status(row), row["id"], row["amount"]] for row in self.invoices]

    def pay_invoice(self, invoice, amount):
        self._check_invoice(invoice)
        if type(amount) is not int or not 0 < amount < 10**9:
            raise LedgerError(400, "invalid_arguments", "amount must be a positive integer")
        self.payments.append((invoice, amount))
        return {"ok": True}

    def send_receipt(self, customer, invoice):
        self._check_customer(customer)
        self._check_invoice(invoice)
        self.receipts.append((customer, invoice))
        return {"ok": True}

    def _status(self, row):
        paid = sum(amount for invoice, amount in self.payments if invoice == row["id"])
        return "paid" if paid >= row["amount"] else row["status"]

    def _check_customer(self, customer):
        if customer != self.customer:
            raise LedgerError(404, "not_found", "no such customer")

    def _check_invoice(self, invoice):
        if all(row["id"] != invoice for row in self.invoices):
            raise LedgerError(404, "not_found", "no such invoice")


def _draw_invoices(dice, wanted):
    """Three or four invoices of different status, one of them `wanted`; first letters and first
    digits differ, so that one token tells which invoice is meant."""
    others = [status for status in STATUSES if status != wanted]
    dice.shuffle(others)
    statuses = [wanted] + others[: dice.randrange(2, 4)]
    dice.shuffle(statuses)
    letters = dice.sample(LETTERS, len(statuses))
    digits = dice.sample(range(1, 10), len(statuses))
    return [
        {
            "id": f"{letter}{dice.randrange(10, 100)}",
            "status": status,
            "amount": 100 * digit + dice.randrange(100),
        }
        for status, letter, digit in zip(statuses, letters, digits)
    ]


def wanted_invoice(item):
    """The invoice the item asks to pay, from books nobody has touched."""
    return next(row for row in Ledger(item).invoices if row["status"] == item["status"])


def grade(ledger, item):
    """Compares the books with what the item asked for. All or nothing; the parts are information."""
    check_item(item)
    truth = wanted_invoice(item)
    paid_ids = [invoice for invoice, _ in ledger.payments]
    receipts = [(ledger.customer, truth["id"])] if item["receipt"] else []
    parts = {
        "invoice": bool(paid_ids) and set(paid_ids) == {truth["id"]},
        "amount": any(payment == (truth["id"], truth["amount"]) for payment in ledger.payments),
        "once": len(ledger.payments) == 1,
        "receipt": ledger.receipts == receipts,
    }
    wrong = [part for part, right in parts.items() if not right]
    return {
        "score": 0.0 if wrong else 1.0,
        "sub_rewards": {part: float(right) for part, right in parts.items()},
        "explanation": f"wrong: {', '.join(wrong)}" if wrong else "the books are right",
    }
