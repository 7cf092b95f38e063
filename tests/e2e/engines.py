# SPDX-License-Identifier: Apache-2.0
"""How other engines are asked to continue a prompt, and how their answer is compared with ours."""

import json
import math
import subprocess

from case import Case, environment
from places import ENGINES, ROLLCALL

IDS = [3, 17, 42, 5, 99, 64, 23, 8]
COUNT = 16  # new tokens
TOLERANCE = 1e-4  # of logits and of log-probabilities, in nats


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


def in_engine(python, script, model, prompt, *more):
    command = [python, ENGINES / script, model, json.dumps(prompt), str(COUNT), *more]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def worst(ours, theirs):
    """The largest difference of two nested lists of numbers; a missing number is an infinite one."""
    if isinstance(ours, list):
        if len(ours) != len(theirs):
            return math.inf
        return max(map(worst, ours, theirs), default=0.0)
    return abs(ours - theirs)


class EngineCase(Case):
    def decode(self, model, ids):
        rows = self.folder / "ids.jsonl"
        rows.write_text(json.dumps({"id": 1, "ids": ids}))
        return json.loads(rollcall("model", "tokenize", model, "--jsonl", rows))["text"]

    def trained_model(self):
        """What a run left, and the prompt of its first task."""
        run = self.trained("trained", algorithm={"learning_rate": 1e-4})
        self.assert_learnt(run)
        rows = self.folder / "data" / "train.jsonl"
        prompts = rollcall("model", "render", run.dir / "export", "--jsonl", rows).splitlines()
        return run.dir / "export", json.loads(prompts[0])["ids"]

    def assert_close(self, ours, theirs, what):
        difference = worst(ours, theirs)
        print(f"{what}: {difference:.1e} at most", flush=True)
        self.assertLess(difference, TOLERANCE, what)

    def assert_same_continuation(self, ours, theirs, what):
        """They stop where the turn ends; we go on."""
        count = len(theirs["ids"])
        self.assertGreater(count, 0)
        self.assertEqual(theirs["ids"], ours["ids"][:count])
        self.assert_close(ours["logprobs"][:count], theirs["logprobs"], f"{what}, log-probabilities")
