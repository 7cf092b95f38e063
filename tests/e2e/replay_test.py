# SPDX-License-Identifier: Apache-2.0
"""An update of a run is made again from its journal, and comes out the same, or the first number that does not is named."""

import json
import re
import shutil
import subprocess
import unittest

import journal_file
from adaptive_test import rarely
from case import Case, environment, sha256
from places import LEDGER, ROLLCALL

STEPS = 3
GAE = {"advantage": "gae", "loss": "ppo_clip", "critic": {"learning_rate": 1e-3, "pretrain_steps": 1, "epochs": 2, "minibatches": 3}}
SHARED = {"advantage": "gae", "critic": {"trunk": "shared", "learning_rate": 1e-3, "pretrain_steps": 0, "coefficient": 0.5}}
LORA = {"path": str(LEDGER / "model"), "train": "lora", "lora": {"rank": 4, "alpha": 8}}


def replay(run_dir, step, *arguments, seconds=60):
    command = [ROLLCALL, "replay", run_dir, "--step", str(step), *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=seconds)


def tree(folder):
    return {str(path): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


class Replay(Case):
    def replayed(self, run, step, code=0):
        done = replay(run.dir, step, "--json")
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def check_identical(self, run, step, begins, source, weights=True):
        """Steps `begins` to `step`, with numbers and the weights of the last one compared."""
        told = self.replayed(run, step)
        self.assertEqual((told["verdict"], told["notes"]), ("identical", []), told)
        self.assertIn(source, told["from"])
        self.assertEqual([one["step"] for one in told["steps"]], list(range(begins, step + 1)))
        recorded = {line["step"]: line for line in run.metrics() if "loss" in line}
        for one in told["steps"]:
            self.assertEqual((one["loss"], one["grad_norm_l2"]), tuple(recorded[one["step"] + 1][name] for name in ("loss", "grad_norm_l2")))
            self.assertEqual(one["compared"]["uses"], 1 + 4 * one["rollouts"])
            self.assertGreater(one["compared"]["metrics"], 25)
        if weights:
            self.assertEqual(told["steps"][-1]["compared"]["weights"], f"step-{step + 1:06}")

    def test_a_run_from_its_beginning_and_from_a_checkpoint(self):
        run = self.trained("whole", cluster={"workers": 2})
        self.assert_learnt(run)
        before, asked = tree(run.dir), dict(self.endpoints.requests)
        self.check_identical(run, STEPS - 1, 0, "model that the run began with")
        shutil.rmtree(run.dir / "checkpoints")
        told = self.replayed(run, STEPS - 1)
        self.assertEqual(told["steps"][-1]["compared"]["weights"], "export")
        self.assertEqual(self.endpoints.requests, asked)
        every = self.trained("every", cluster={"workers": 1}, checkpoint={"every": 1})
        self.assertEqual(set(before) - set(tree(run.dir)), {name for name in before if "/checkpoints/" in name})
        before = tree(every.dir)
        for step in range(STEPS):
            self.check_identical(every, step, step, f"step-{step:06}" if step else "model")
        moved = self.folder / "moved"
        every.dir.rename(moved)
        (self.folder / "data" / "train.jsonl").unlink()
        shown = replay(moved, 1)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertRegex(shown.stdout, r"step 1: 16 rollouts, signal \d/4 groups, loss .*; identical: 65 values of the journal, \d+ numbers")
        self.assertIn("step 1 comes out the same, bit for bit", shown.stdout)
        self.assertEqual({name.replace(str(moved), str(every.dir)): digest for name, digest in tree(moved).items()}, before)

    def test_a_price_on_divergence_and_updates_that_were_left_out(self):
        settings = {"run": {"steps": 16}, "alarms": {"grad_norm": 0.01}, "checkpoint": {"every": 5, "keep": 9}}
        run = self.trained("priced", algorithm={"kl": {"coefficient": 0.1}}, **settings)
        self.assertGreater(sum(line.get("gradient_spikes", 0) for line in run.metrics()), 2)
        self.check_identical(run, 15, 15, "step-000015")
        self.check_identical(run, 14, 13, "step-000013")  # saved where the policy had gone back
        self.check_identical(run, 12, 10, "step-000010")

    def test_critics_adapters_and_bfloat16(self):
        kinds = {
            "gae": {"algorithm": GAE},
            "shared": {"algorithm": SHARED, "model": LORA},
            "lora": {"model": LORA},
            "epochs": {"algorithm": {"epochs": 2, "minibatch_prompts": 1, "anchor": "old"}},
            "bf16": {"model": {"path": str(LEDGER / "model"), "dtype": "bfloat16"}},
        }
        for name, settings in kinds.items():
            with self.subTest(name):
                run = self.trained(name, **settings)
                self.check_identical(run, STEPS - 1, 0, "model")

    def test_steps_of_several_rounds_and_after_a_kill(self):
        self.endpoints.grade = rarely
        adaptive = {"target_signal": 4, "min_rollouts": 16, "max_rollouts": 160}
        settings = {"checkpoint": {"every": 2}, "cluster": {"workers": 2}}
        run = self.make_run("cut", batch={"prompts": 4, "group_size": 4, "adaptive": adaptive}, **settings)
        self.endpoints.hold_from(16 + 24)
        with self.running(run):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertGreater(max(line["rounds"] for line in run.metrics()), 1)
        self.check_identical(run, 1, 0, "model")
        self.check_identical(run, 2, 2, "step-000002")

    def test_as_many_learners_as_the_run_had(self):
        for name, algorithm in {"two": {}, "minibatches": {"epochs": 2, "minibatch_prompts": 1}}.items():
            with self.subTest(name):
                run = self.trained(name, cluster={"learners": 2, "workers": 1}, algorithm=algorithm)
                before = tree(run.dir)
                self.check_identical(run, STEPS - 1, 0, "model")
                self.assertEqual(tree(run.dir), before)
        steps = [line for line in run.metrics() if "optimizer_steps" in line]
        self.assertEqual([line["optimizer_steps"] for line in steps], [2 * line["groups_signal"] for line in steps])

    def test_a_fault_and_a_mask_stay_out_of_the_update_again(self):
        self.endpoints.tool_fails = lambda headers: headers["X-Rft-Rollout-Id"].endswith("1")
        run = self.trained("faulty")
        self.assertGreater(sum(line["faults"] for line in run.metrics()), 0)
        self.check_identical(run, STEPS - 1, 0, "model")

    def test_other_settings_are_told_with_the_first_number_that_differs(self):
        run = self.trained("rate")
        config = run.dir / "config.yaml"
        text = config.read_text()
        config.write_text(re.sub(r"learning_rate: 0\.001\b", "learning_rate: 0.002", text, count=1))
        self.assertNotEqual(config.read_text(), text)
        told = self.replayed(run, 2, code=1)
        self.assertEqual(told["verdict"], "different")
        self.assertEqual([one["step"] for one in told["steps"]], [0], "what follows rests on other weights")
        self.assertEqual(told["steps"][0]["differences"], [{"what": "learning_rate", "recorded": "0.0005", "replayed": "0.001"}])
        self.assertIn("config.yaml is not what the run began with: algorithm.learning_rate: 0.001 -> 0.002", told["notes"])
        config.write_text(text.replace("seed: 1", "seed: 2", 1))
        told = self.replayed(run, 0, code=1)
        self.assertIn("group 0, member 0 was to do", told["steps"][0]["differences"][0]["what"])
        shown = replay(run.dir, 0)
        self.assertIn("DIFFERENT: what group 0", shown.stdout)

    def test_a_changed_byte_is_found_and_named(self):
        run = self.trained("flipped")
        whole = run.journal().read_bytes()
        use = journal_file.uses(run.journal())[20]
        with journal_file.open_journal(run.journal()) as file:
            bounds = [int(place) for place in file["offsets"]]
            values = file["behavior_logprobs"][:]
        # Of a row unlike all others: two rollouts of a group may have sampled the same.
        of_row = {row: values[begin:end].tobytes() for row, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:]))}
        row, logprobs = next((row, part) for row, part in of_row.items() if len(part) > 8 and whole.count(part) == 1)

        def changed(place):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            run.journal().write_bytes(damaged)

        place = whole.find(logprobs)
        self.assertGreater(place, 0)
        changed(place + len(logprobs) - 8)
        done = replay(run.dir, 2)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stderr, rf"row {row}\b")

        changed(whole.find(use.tobytes()) + use.dtype.fields["reward"][1])  # no checksum guards it
        told = self.replayed(run, 1, code=1)
        first = told["steps"][-1]["differences"][0]
        self.assertEqual(first["what"], f"reward of row {use['row']}")
        self.assertEqual(float(first["replayed"]), use["reward"])
        run.journal().write_bytes(whole)
        self.check_identical(run, 2, 0, "model")

    def test_weights_that_were_changed_are_told(self):
        run = self.trained("weights")
        lines = (run.dir / "metrics.jsonl").read_text()
        wrong = re.sub(r'"entropy_mean":([0-9.e-]+)', '"entropy_mean":0.5', lines, count=1)
        (run.dir / "metrics.jsonl").write_text(wrong)
        told = self.replayed(run, 2, code=1)
        self.assertEqual([d["what"] for d in told["steps"][0]["differences"]], ["entropy_mean"])
        (run.dir / "metrics.jsonl").write_text(lines)
        shutil.rmtree(run.dir / "checkpoints")
        shutil.copy(LEDGER / "model" / "model.safetensors", run.dir / "export" / "model.safetensors")
        told = self.replayed(run, 2, code=1)
        self.assertEqual([d["what"] for d in told["steps"][2]["differences"]], ["weights, xxh3"])

    def test_what_cannot_be_replayed_is_bad_input(self):
        model = self.folder / "model"
        shutil.copytree(LEDGER / "model", model)
        run = self.trained("bad", model={"path": str(model)}, checkpoint={"keep": 1})
        for words, *arguments in (("has no update of step 9", run.dir, 9), ("config.yaml", self.folder, 0)):
            done = replay(*arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(words, done.stderr)
        weights = model / "model.safetensors"
        changed = bytearray(weights.read_bytes())
        changed[-2] ^= 1
        weights.write_bytes(changed)
        done = replay(run.dir, 1)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("are not those that the run began with", done.stderr)

    def test_each_step_is_made_by_the_configuration_that_it_had(self):
        run = self.make_run("retuned", run={"steps": 2}, checkpoint={"every": 0, "keep": 1})
        self.assertEqual(run.train()[0], 0)
        changes = ("run.steps=4", "algorithm.learning_rate=5e-4", "batch.group_size=3")
        code, errors = run.train(*[word for change in changes for word in ("--set", change)])
        self.assertEqual(code, 0, errors)
        for checkpoint in (run.dir / "checkpoints").iterdir():
            shutil.rmtree(checkpoint)
        done = replay(run.dir, 3)  # from the first step on, over the change
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout.count("identical"), 4, done.stdout)


if __name__ == "__main__":
    unittest.main()
