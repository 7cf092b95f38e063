# SPDX-License-Identifier: Apache-2.0
"""PPO with a critic: the same promises as for group-relative advantages, and a critic that is part of the run."""

import math
import subprocess
import unittest

import journal_file
from case import Case, environment, sha256
from places import LEDGER, ROLLCALL

PPO = {"advantage": "gae", "loss": "ppo_clip", "critic": {"learning_rate": 1e-3, "pretrain_steps": 2, "epochs": 2, "minibatches": 3}}
SHARED = {"advantage": "gae", "critic": {"trunk": "shared", "learning_rate": 1e-3, "pretrain_steps": 2, "coefficient": 0.5}}
LORA = {"path": str(LEDGER / "model"), "train": "lora", "lora": {"rank": 4, "alpha": 8}}
STEPS, PER_STEP = 5, 16
OF_THE_CRITIC = ("value_loss", "explained_variance", "value_mean", "return_mean", "critic_grad_norm_l2")


class Critic(Case):
    def ppo_run(self, name, **changes):
        settings = {"run": {"steps": STEPS}, "algorithm": PPO, "cluster": {"workers": 2}, "checkpoint": {"every": 1}}
        return self.make_run(name, **{**settings, **changes})

    def finish(self, run, *arguments):
        code, errors = run.train(*arguments)
        self.assertEqual(code, 0, errors)
        self.assertEqual([line["step"] for line in run.metrics()], list(range(1, STEPS + 1)))
        return run.digests(STEPS)

    def cut_off(self, run, after):
        """kill -9 in the middle of the step behind `after`."""
        self.endpoints.hold_from(after * PER_STEP + 8)
        with self.running(run):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        self.assertEqual(run.checkpoints()[-1], f"step-{after:06}")

    def check_metrics(self, run):
        for line in run.metrics():
            alone = line["step"] <= 2
            self.assertEqual([line["loss"], line["entropy_mean"]] == [None, None], alone, line)
            self.assertEqual(line["learning_rate"] == 0, alone)
            for name in OF_THE_CRITIC:
                self.assertTrue(math.isfinite(line[name]), (name, line))
            self.assertGreater(line["critic_grad_norm_l2"], 0)
        self.assertEqual(run.metrics()[0]["value_mean"], 0, "V begins at 0")
        self.assertNotEqual(run.metrics()[1]["value_mean"], 0)

    def check_uses(self, run):
        """Every rollout is used, in groups without variance too, and its advantages are whitened."""
        with journal_file.open_journal(run.journal()) as file:
            uses = file["uses"][:]
        self.assertEqual(len(uses), STEPS * PER_STEP)
        self.assertTrue(uses["in_loss"].all())
        for step in range(STEPS):
            self.assertGreater(len(set(uses["advantage"][uses["step"] == step].tolist())), 1)

    def check_policy_stays(self, run):
        """While the critic learns alone; and it is no part of an export."""
        digests, size = {}, 0
        for step in (1, 2, 3):
            out = self.folder / f"export{step}"
            done = subprocess.run([ROLLCALL, "export", run.dir, "--out", out, "--step", str(step)], env=environment(), capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            digests[step], size = sha256(out / "model.safetensors"), (out / "model.safetensors").stat().st_size
        self.assertEqual(digests[1], digests[2])
        self.assertNotEqual(digests[2], digests[3])
        self.assertLess(size, 1.1 * (LEDGER / "model" / "model.safetensors").stat().st_size)

    def test_kills_and_workers_do_not_reach_policy_or_critic(self):
        one = self.ppo_run("one", cluster={"workers": 1})
        digests = self.finish(one)
        self.check_metrics(one)
        self.check_uses(one)
        self.check_policy_stays(one)
        for after in (1, 3):  # while the critic learns alone, and after
            run = self.ppo_run(f"cut{after}")
            self.cut_off(run, after)
            self.assertEqual(self.finish(run), digests)

    def test_a_shared_trunk_under_lora_resumes_to_the_same_bits(self):
        settings = {"algorithm": SHARED, "model": LORA}
        whole = self.ppo_run("whole", **settings)
        digests = self.finish(whole)
        self.check_metrics(whole)
        cut = self.ppo_run("cut", **settings)
        self.cut_off(cut, 3)
        self.assertEqual(self.finish(cut), digests)

    def test_two_learners_compute_the_same_update(self):
        for name, algorithm in (("own", PPO), ("shared", SHARED)):
            algorithm = {**algorithm, "critic": {**algorithm["critic"], "pretrain_steps": 0}}
            settings = {"algorithm": algorithm, "run": {"steps": 1}}
            one, two = (
                self.trained(f"{name}{learners}", **settings, cluster={"learners": learners}).metrics()[0] for learners in (1, 2)
            )
            for metric in ("loss", "grad_norm_l2", *OF_THE_CRITIC):
                self.assertAlmostEqual(two[metric], one[metric], delta=1e-5 * max(1, abs(one[metric])), msg=metric)

    def test_two_learners_resume_to_the_same_bits(self):
        settings = {"cluster": {"learners": 2, "workers": 1}}
        whole = self.ppo_run("whole", **settings)
        digests = self.finish(whole)
        cut = self.ppo_run("cut", **settings)
        self.cut_off(cut, 3)
        self.assertEqual(self.finish(cut), digests)

    def test_groups_of_one(self):
        run = self.trained("alone", algorithm=PPO, batch={"prompts": 8, "group_size": 1})
        self.assertGreater(run.metrics()[-1]["grad_norm_l2"], 0)
        self.assertEqual(run.metrics()[-1]["groups_dropped"], 0)

    def test_another_critic_is_refused_by_its_key(self):
        run = self.trained("critic", algorithm=PPO, run={"steps": 3})
        for words, *changes in (
            ("algorithm.critic.gamma: 1 -> 0.9", "algorithm.critic.gamma=0.9"),
            ("algorithm.critic.trunk", "algorithm.critic={trunk: shared, pretrain_steps: 2}"),
            ("algorithm.advantage", "algorithm.critic={}", "algorithm.advantage=rloo"),
        ):
            code, errors = run.train("--set", "run.steps=4", *(word for change in changes for word in ("--set", change)))
            self.assertEqual(code, 2, errors)
            self.assertIn(words, errors)
        self.assertEqual(run.train("--set", "run.steps=4")[0], 0)


if __name__ == "__main__":
    unittest.main()
