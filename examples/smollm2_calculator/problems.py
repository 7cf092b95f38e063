# SPDX-License-Identifier: Apache-2.0
"""The calculator example: word problems, the calculator and the grade. Server, data and tests share this file.

An item (a dataset row) carries its right `answer`, which the model never sees.
"""

import ast
import operator
import re
from fractions import Fraction

# What is computed -> how it is told. Held-out problems share neither wordings nor number ranges with those for training.
TRAIN_STORIES = {
    "{a}*{b}": (
        "A crate holds {a} apples. How many apples are in {b} crates?",
        "A printer prints {b} pages an hour. How many pages does it print in {a} hours?",
        "{a} teams have {b} players each. How many players are there?",
        "One ticket costs {b} dollars. What do {a} tickets cost?",
        "A hall has {a} rows with {b} seats in each row. How many seats does it have?",
        "Mia saves {b} cents every week. How many cents does she save in {a} weeks?",
        "A baker bakes {b} rolls on each of {a} days. How many rolls does he bake?",
        "{a} boxes of {b} cups arrive. How many cups arrive?",
    ),
    "{b}+{c}": (
        "A library owns {b} novels and {c} comics. How many books does it own?",
        "On Monday {b} people came, on Tuesday {c}. How many came in all?",
        "Tom has {b} stamps and gets {c} more. How many stamps has he now?",
        "A train has {b} seats downstairs and {c} upstairs. How many seats does it have?",
        "A shop sold {b} pens and {c} pencils. How many things did it sell?",
        "A truck carries {b} kilos of sand and {c} kilos of stone. How many kilos is that?",
        "Sam buys {b} nails and finds {c} more nails. How many nails has he?",
        "{b} cans are on the shelf and {c} cans lie on the floor. How many cans are there?",
    ),
    "{c}-{b}": (
        "A farmer had {c} eggs and sold {b}. How many eggs are left?",
        "A book has {c} pages. Ann has read {b}. How many pages remain?",
        "There were {c} fish in a pond and {b} were caught. How many are still there?",
        "A tank holds {c} liters. {b} liters flow out. How many liters stay in it?",
        "A bike costs {c} dollars and Leo has {b}. How many dollars are missing?",
        "Of {c} seeds {b} did not grow. How many seeds grew?",
        "Kim earns {c} dollars and spends {b}. How many dollars are left?",
        "Of {c} plums {b} are bad. How many plums are good?",
    ),
}
VALID_STORIES = {
    "{a}*{b}": (
        "Every one of {a} beehives has {b} bees. How many bees live there?",
        "A ferry takes {b} cars per crossing. How many cars does it take in {a} crossings?",
        "What is the price of {a} chairs at {b} euros each?",
        "A singer gives {a} concerts with {b} guests each. How many guests come?",
    ),
    "{b}+{c}": (
        "A museum shows {b} paintings and {c} statues. How many works of art is that?",
        "Nina walked {b} steps in the morning and {c} in the evening. What is the total?",
        "In the forest {b} oaks and {c} pines were planted. How many trees were planted?",
        "Paul loads {b} bricks by machine and {c} bricks by hand. How many bricks does he load?",
    ),
    "{c}-{b}": (
        "A stadium had {c} visitors, {b} of them went home. How many visitors stayed?",
        "Out of {c} letters {b} are delivered. How many must still be delivered?",
        "A jar with {c} beans loses {b} beans. How many beans does it still hold?",
        "A club sells {c} raffle tickets and takes back {b}. How many stay sold?",
    ),
}
# Ranges of a, of b, and of what c is above b; too large to do in the head.
TRAIN_RANGES = {"a": (12, 49), "b": (112, 498), "more": (113, 487)}
VALID_RANGES = {"a": (52, 98), "b": (502, 987), "more": (502, 989)}

TOOL = "calculator"
MAX_EXPRESSION = 100  # characters
MAX_VALUE = 10**15
MAX_CALLS = 4  # of one trace


def draw(dice, split):
    """A problem of a split: its text, the expression that solves it and the answer."""
    stories, ranges = (VALID_STORIES, VALID_RANGES) if split == "valid" else (TRAIN_STORIES, TRAIN_RANGES)
    numbers = {name: dice.randint(*bounds) for name, bounds in ranges.items()}
    numbers["c"] = numbers["b"] + numbers["more"]
    formula = dice.choice(sorted(stories))
    expression = formula.format(**numbers)
    answer = int(calculate(expression))
    return {"problem": dice.choice(stories[formula]).format(**numbers), "expression": expression, "answer": answer}


class CalculatorError(Exception):
    """What the calculator refuses, in words for the model."""


OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def calculate(expression):
    """The value of an expression of numbers, + - * / and parentheses, as text."""
    if not isinstance(expression, str) or len(expression) > MAX_EXPRESSION:
        raise CalculatorError(f"expression must be a text of at most {MAX_EXPRESSION} characters")
    try:
        if not re.fullmatch(r"[-+*/(). 0-9]+", expression):
            raise ValueError(expression)
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise CalculatorError("not an expression of numbers, + - * / and parentheses") from None
    return str(value) if value.denominator == 1 else f"{float(value):.6g}"


def _value(node):
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = Fraction(str(node.value))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = -_value(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Div) and right == 0:
            raise CalculatorError("division by zero")
        value = OPERATORS[type(node.op)](left, right)
    else:
        raise ValueError(node)
    if abs(value) >= MAX_VALUE:
        raise CalculatorError("the value is too large")
    return value


NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


def final_number(text):
    """The last number of a text, or None."""
    found = NUMBER.findall(text)
    return Fraction(found[-1].replace(",", "")) if found else None


def grade(text, values, item):
    """1 if the answer ends in the right number, else 0; `values` are what the calculator gave."""
    answer = item["answer"]
    right = final_number(text) == answer
    return {
        "score": float(right),
        "sub_rewards": {"calculated": float(bool(values)), "found": float(str(answer) in values), "answered": float(right)},
        "explanation": "right" if right else f"the answer is {answer}",
    }
