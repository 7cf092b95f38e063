# SPDX-License-Identifier: Apache-2.0
"""Ledger agents that almost never succeed, to a known degree.

The ledger example's model is careless because its demonstrations are; here they are more careless still, or more so for some
kinds of task than for others. Everything else (drilled model, tools, grader, tasks) is the example's.
"""

import pathlib
import random
import subprocess
import sys

LEDGER = pathlib.Path(__file__).resolve().parents[2] / "examples" / "ledger"
sys.path.insert(0, str(LEDGER))

import make_data  # noqa: E402
from ledger import PAYABLE  # noqa: E402

DEMONSTRATIONS = 24_000
TRAIN_TASKS, VALID_TASKS, SEED = 4096, 200, 7


def evenly(care, receipt):
    """The same care for every task: of the right invoice, its amount and what comes next; and of the receipt's invoice."""
    return lambda task: {"invoice": care, "amount": care, "next": care, "receipt": receipt}


# By status, without and with a receipt.
MIXTURE = dict(zip([(status, receipt) for receipt in (False, True) for status in PAYABLE],
                   (0.92, 0.7, 0.48, 0.32, 0.2, 0.12), strict=True))


def mixed(task):
    care = MIXTURE[task["status"], task["receipt"]]
    return {"invoice": care, "amount": care, "next": care, "receipt": max(care, 0.5)}


# Name -> care of a task's demonstration.
PROBLEMS = {
    "5%": lambda task: make_data.CARE,
    "0.5%": evenly(0.1, 0.5),
    "0.1%": evenly(0.03, 0.3),
    "mixture": mixed,
}


def demonstration(care_of, index):
    dice = random.Random(f"{SEED}/clerk/{index}")
    task = make_data.make_task("demos", index, SEED)
    if dice.random() < make_data.CAREFUL_SHARE:
        return make_data.demonstrate(task, {}, dice, "Carefully pay")[0]
    return make_data.demonstrate(task, care_of(task), dice)[0]


def write_tasks(folder):
    for split, count in (("train", TRAIN_TASKS), ("valid", VALID_TASKS)):
        rows = (make_data.make_row(make_data.make_task(split, i, SEED)) for i in range(count))
        make_data.write_rows(str(folder / f"{split}.jsonl"), rows)


def make(name, folder, rollcall, drilled):
    """Makes the problem's model in folder/model, from the drilled one, and its tasks in folder, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "valid.jsonl").exists():
        write_tasks(folder)
    if (folder / "model").exists():
        return
    demos = folder / "demos.jsonl"
    make_data.write_rows(str(demos), (demonstration(PROBLEMS[name], i) for i in range(DEMONSTRATIONS)))
    settings = {"model.path": drilled, "sft.from_scratch": "false", "sft.out": folder / "model", "sft.demonstrations": demos,
                "sft.steps": 400, "sft.batch": 32, "sft.learning_rate": "2e-3", "sft.warmup_steps": 10}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([rollcall, "sft", str(LEDGER / "sft.yaml"), *words], check=True)
