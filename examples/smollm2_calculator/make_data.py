# SPDX-License-Identifier: Apache-2.0
"""Writes train.jsonl and valid.jsonl of the calculator example."""

import argparse
import json
import os
import random

from problems import TOOL, calculate, draw

SYSTEM = "Use the calculator."
HINT = " Write a <tool_call> with the expression."
# Worked examples, one of each operation. So small a model needs to see them to make any call at all.
EXAMPLES = (
    ("A farm has 23 fields with 118 trees each. How many trees does it have?", "23*118"),
    ("Eva had 350 coins and spent 127. How many coins are left?", "350-127"),
    ("A box holds 412 eggs and a crate 530. How many eggs are there?", "412+530"),
)
FUNCTION = {"name": TOOL, "parameters": {"properties": {"expression": {}}}}


def ask(problem):
    return {"role": "user", "content": problem + HINT}


def call(expression, call_id):
    function = {"name": TOOL, "arguments": {"expression": expression}}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}


def examples():
    """The first example to its end, of the others the call alone: prompts are paid for in every step."""
    messages = []
    for number, (problem, expression) in enumerate(EXAMPLES, 1):
        messages += [ask(problem), call(expression, f"call_{number}")]
        if number == 1:
            value = calculate(expression)
            messages.append({"role": "tool", "tool_call_id": "call_1", "content": value})
            messages.append({"role": "assistant", "content": value})
    return messages


def make_row(split, index, seed):
    """A dataset row: the conversation's start, the tool, and what the grader needs."""
    problem = draw(random.Random(f"{seed}/{split}/{index}"), split)
    messages = [{"role": "system", "content": SYSTEM}, *examples(), ask(problem.pop("problem"))]
    return {"messages": messages, "tools": [{"type": "function", "function": FUNCTION}], **problem}


def write_rows(path, rows):
    with open(path + ".part", "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")
    os.replace(path + ".part", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--train", type=int, default=4096)
    parser.add_argument("--valid", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    for split in ("train", "valid"):
        rows = (make_row(split, i, options.seed) for i in range(getattr(options, split)))
        write_rows(os.path.join(options.out, f"{split}.jsonl"), rows)


if __name__ == "__main__":
    main()
