# SPDX-License-Identifier: Apache-2.0
"""What is exported continues a prompt in other engines as it does here: the same greedy text and log-probabilities.

ROLLCALL_HF_PYTHON names a Python with the packages of tests/engines/requirements.txt; ./test makes one.
"""

import json
import math
import os
import subprocess
import sys
import unittest

from case import Case, environment
from places import ENGINES, GOLDEN_MODELS, LEDGER, ROLLCALL

PYTHON = os.environ.get("ROLLCALL_HF_PYTHON")
IDS = [3, 17, 42, 5, 99, 64, 23, 8]
COUNT = 16  # new tokens
TOLERANCE = 1e-4  # of logits and of log-probabilities, in nats

# Small models and how llama.cpp would call their way of cutting text into words.
MODELS = {"qwen3-tied": "qwen2", "qwen3-untied-sharded": "qwen2", "llama3-scaled-sharded": "llama-bpe",
          "llama-bias-v5": "llama-bpe", "llama-tied-bf16": "smollm"}


def rollcall(*arguments):
    done = subprocess.run([ROLLCALL, *arguments], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def greedy(model, prompt):
    """Our own continuation: its ids with their log-probabilities, and the prompt's logits."""
    def logits(ids, *more):
        return json.loads(rollcall("model", "logits", model, "--ids", ",".join(map(str, ids)), *more))

    new = logits(prompt, "--greedy", str(COUNT))["greedy"]
    whole = logits(prompt + new)
    return {"ids": new, "logprobs": whole["logprobs"][len(prompt) - 1 :], "logits": whole["logits"][: len(prompt)]}


def in_engine(script, model, prompt, *more):
    command = [PYTHON, ENGINES / script, model, json.dumps(prompt), str(COUNT), *more]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def worst(ours, theirs):
    """The largest difference of two nested lists of numbers; a missing number is an infinite one."""
    if isinstance(ours, list):
        if len(ours) != len(theirs):
            return math.inf
        return max(map(worst, ours, theirs), default=0.0)
    return abs(ours - theirs)


class Engines(Case):
    def decode(self, model, ids):
        rows = self.folder / "ids.jsonl"
        rows.write_text(json.dumps({"id": 1, "ids": ids}))
        return json.loads(rollcall("model", "tokenize", model, "--jsonl", rows))["text"]

    def render(self, model, row):
        rows = self.folder / "rows.jsonl"
        rows.write_text(row)
        return json.loads(rollcall("model", "render", model, "--jsonl", rows))["ids"]

    def compare(self, model, prompt, pre):
        ours = greedy(model, prompt)
        with self.subTest("transformers", model=model.name):
            theirs = in_engine("in_transformers.py", model, prompt)
            count = len(theirs["ids"])  # it stops where the turn ends
            self.assertEqual(theirs["ids"], ours["ids"][:count])
            self.assertEqual(theirs["text"], self.decode(model, theirs["ids"]))
            self.assertLess(worst(ours["logprobs"][:count], theirs["logprobs"]), TOLERANCE)
            self.assertLess(worst(ours["logits"], theirs["logits"]), TOLERANCE)
        with self.subTest("llama.cpp", model=model.name):
            theirs = in_engine("in_llama_cpp.py", model, prompt, pre)
            text = self.decode(model, ours["ids"])
            self.assertTrue(theirs["text"])
            self.assertTrue(text.startswith(theirs["text"]), (text, theirs["text"]))
            self.compare_some(ours, theirs)

    def compare_some(self, ours, theirs):
        """llama.cpp lists no token that ends within a character."""
        listed = zip(theirs["ids"], theirs["logprobs"])
        mine = iter(zip(ours["ids"], ours["logprobs"]))
        for token, logprob in listed:
            match = next((value for id, value in mine if id == token and abs(value - logprob) < TOLERANCE), None)
            self.assertIsNotNone(match, (token, logprob, ours["ids"], ours["logprobs"]))

    def test_small_models(self):
        for name, pre in MODELS.items():
            out = self.folder / name
            rollcall("export", GOLDEN_MODELS / name, "--out", out)
            self.compare(out, IDS, pre)

    def test_bfloat16_weights(self):
        out = self.folder / "bfloat16"
        rollcall("export", GOLDEN_MODELS / "qwen3-tied", "--out", out, "--dtype", "bfloat16")
        self.compare(out, IDS, MODELS["qwen3-tied"])

    def test_what_a_run_leaves(self):
        run = self.trained("trained", algorithm={"learning_rate": 1e-4})
        self.assert_learnt(run)
        row = (self.folder / "data" / "train.jsonl").read_text().splitlines()[0]
        model = run.dir / "export"
        self.compare(model, self.render(model, row), "qwen2")


if __name__ == "__main__":
    if PYTHON is None:
        print("ROLLCALL_HF_PYTHON is not set")
        sys.exit(77)
    unittest.main()
