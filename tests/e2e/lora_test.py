# SPDX-License-Identifier: Apache-2.0
"""Training a LoRA adapter: the same promises as for whole weights, and files that other tools read.

ROLLCALL_HF_PYTHON may name a Python that has transformers and peft; without it that comparison is left out.
"""

import json
import os
import pathlib
import shutil
import subprocess
import unittest

import journal_file
from case import Case, environment, sha256
from places import GOLDEN_MODELS, LEDGER, ROLLCALL

IDS = [3, 17, 42, 5, 99, 64, 23, 8]
GOLDEN_ADAPTER = GOLDEN_MODELS.parent / "adapters" / "qwen2-lora"
COMPARE = pathlib.Path(__file__).resolve().parents[1] / "python" / "compare_adapter.py"
LORA = {"path": str(LEDGER / "model"), "train": "lora", "lora": {"rank": 4, "alpha": 8}}
FILES = ("adapter_config.json", "adapter_model.safetensors")


def rollcall(*arguments):
    return subprocess.run([ROLLCALL, *arguments], env=environment(), capture_output=True, text=True, timeout=60)


def adapter_digests(folder):
    return {name: sha256(folder / name) for name in FILES}


class Lora(Case):
    def lora_run(self, name, **changes):
        return self.make_run(name, **{"model": LORA, **changes})

    def finish(self, run, *arguments):
        code, errors = run.train(*arguments)
        self.assertEqual(code, 0, errors)
        return {**run.digests(3), **adapter_digests(run.dir / "adapter")}

    def logits(self, model, *arguments):
        done = rollcall("model", "logits", model, "--ids", ",".join(map(str, IDS)), *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)["logits"]

    def export(self, source, name, *arguments):
        out = self.folder / name
        done = rollcall("export", source, "--out", out, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return out

    def assert_close(self, ours, theirs, tolerance=1e-4):
        self.assertEqual(len(ours), len(theirs))
        worst = max(abs(a - b) for row, other in zip(ours, theirs) for a, b in zip(row, other, strict=True))
        self.assertLessEqual(worst, tolerance)

    def compare_with_peft(self, base, adapter, merged):
        """Our logits of adapter and merged model against what peft computes."""
        self.assertEqual(self.logits(merged), self.logits(base, "--adapter", adapter))
        python = os.environ.get("ROLLCALL_HF_PYTHON")
        if python is None:
            return
        command = [python, COMPARE, base, adapter, json.dumps(IDS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        if done.returncode == 77:
            return
        self.assertEqual(done.returncode, 0, done.stderr)
        theirs = json.loads(done.stdout)
        self.assert_close(self.logits(merged), theirs["unmerged"])
        self.assert_close(self.logits(merged), theirs["merged"])

    def test_workers_and_kills_do_not_reach_the_adapter(self):
        one = self.lora_run("one", checkpoint={"every": 1})
        digests = self.finish(one)
        self.assert_learnt(one)
        self.assertEqual({line["logprob_gap_max"] for line in one.metrics()}, {0}, "sampler and learner differ")
        self.assertNotEqual(self.logits(one.dir / "export"), self.logits(LEDGER / "model"))

        two = self.lora_run("two", checkpoint={"every": 1}, cluster={"workers": 2})
        self.endpoints.hold_from(16 + 8)
        with self.running(two):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        self.assertEqual(two.checkpoints(), ["step-000001"])
        self.assertEqual(self.finish(two), digests)

        again = self.lora_run("again", checkpoint={"every": 1}, algorithm={"activation_checkpointing": True})
        self.assertEqual(self.finish(again), digests)

        self.check_files(one, digests)
        self.check_refusals(one)
        self.check_next_run(one)
        self.check_evaluation(one)

    def check_files(self, run, digests):
        self.assertEqual(run.result()["adapter"], str(run.dir / "adapter"))
        self.compare_with_peft(LEDGER / "model", run.dir / "adapter", run.dir / "export")
        self.assertEqual(adapter_digests(self.export(run.dir, "adapter", "--adapter-only")), adapter_digests(run.dir / "adapter"))
        merged = self.export(LEDGER / "model", "merged", "--adapter", run.dir / "adapter", "--merge")
        self.assertEqual(sha256(merged / "model.safetensors"), digests["model.safetensors"])
        self.assertEqual(sha256(self.export(run.dir, "run") / "model.safetensors"), digests["model.safetensors"])
        early = self.export(run.dir, "early", "--step", "1")
        self.assertNotEqual(sha256(early / "model.safetensors"), digests["model.safetensors"])
        self.assertEqual(rollcall("export", run.dir, "--out", self.folder / "x", "--step", "7").returncode, 2)

    def check_refusals(self, run):
        """The run's checkpoint is of no use to a run that trains something else."""
        cases = {
            "all weights": ["--set", "model.train=full", "--set", "model.lora={}"],
            "rank 4": ["--set", "model.lora.rank=2"],
            "targets v_proj": ["--set", "model.lora.targets=[v_proj]"],
        }
        for what, arguments in cases.items():
            with self.subTest(what):
                code, errors = run.train("--set", "run.steps=4", *arguments)
                self.assertEqual(code, 2, errors)
                self.assertIn(what, errors)
        model = self.folder / "model"
        shutil.copytree(LEDGER / "model", model)
        weights = model / "model.safetensors"
        changed = bytearray(weights.read_bytes())
        changed[-2] ^= 1
        weights.write_bytes(changed)
        code, errors = run.train("--set", "run.steps=4", "--set", f"model.path={model}")
        self.assertEqual(code, 2, errors)
        self.assertIn("other weights", errors)

    def check_next_run(self, run):
        """A run that starts from the adapter begins as the policy that the run before ended with."""
        model = {"path": str(LEDGER / "model"), "train": "lora", "adapter": str(run.dir / "adapter")}
        following = self.make_run("following", model=model, run={"steps": 0})
        code, errors = following.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(sha256(following.dir / "export" / "model.safetensors"), sha256(run.dir / "export" / "model.safetensors"))
        self.assertEqual(adapter_digests(following.dir / "adapter"), adapter_digests(run.dir / "adapter"))

    def check_evaluation(self, run):
        """An evaluation samples from adapter and merged model alike."""
        data = {"valid": str(self.folder / "data" / "valid.jsonl")}
        adapted = {"path": str(LEDGER / "model"), "train": "lora", "adapter": str(run.dir / "adapter")}
        seen = []
        for name, model in (("adapted", adapted), ("merged", {"path": str(run.dir / "export")}), ("base", {"path": str(LEDGER / "model")})):
            evaluated = self.make_run(name, model=model, data=data)
            code, _, errors = evaluated.evaluate()
            self.assertEqual(code, 0, errors)
            seen.append(journal_file.sampled(evaluated.dir / "eval" / "journal.h5"))
        self.assertEqual(seen[0], seen[1])
        self.assertNotEqual(seen[0], seen[2])

    def test_a_warm_start_leaves_adapter_and_merged_model(self):
        out, adapter = self.folder / "out", self.folder / "adapter"
        settings = {
            "run": {"name": "warm"},
            "model": {**LORA, "dtype": "bfloat16"},
            "sft": {"demonstrations": str(self.folder / "data" / "demos.jsonl"), "steps": 2, "batch": 1, "warmup_steps": 0,
                    "out": str(out), "adapter_out": str(adapter)},
        }
        (self.folder / "sft.yaml").write_text(json.dumps(settings))
        done = rollcall("sft", self.folder / "sft.yaml")
        self.assertEqual(done.returncode, 0, done.stderr)
        merged = self.logits(LEDGER / "model", "--adapter", adapter, "--dtype", "bfloat16")
        self.assertEqual(self.logits(out, "--dtype", "bfloat16"), merged)
        self.assertNotEqual(merged, self.logits(LEDGER / "model", "--dtype", "bfloat16"))

    def test_peft_agrees_on_a_reference_adapter(self):
        base = GOLDEN_MODELS / "qwen2-untied"
        self.compare_with_peft(base, GOLDEN_ADAPTER, self.export(base, "merged", "--adapter", GOLDEN_ADAPTER, "--merge"))

    def test_options_that_do_not_go_together(self):
        base, adapter = GOLDEN_MODELS / "qwen2-untied", GOLDEN_ADAPTER
        for arguments in (["--adapter", adapter], ["--merge"], ["--adapter-only"], ["--step", "1"]):
            done = rollcall("export", base, "--out", self.folder / "x", *arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertFalse((self.folder / "x").exists())


if __name__ == "__main__":
    unittest.main()
