# SPDX-License-Identifier: Apache-2.0
"""Steps sized by their signal: the same for any number of workers and across a kill, and decided again from the journal."""

import re
import subprocess
import unittest

from case import Case
from endpoints import coin
from places import ROLLCALL

STEPS = 4


def rarely(request):
    """About one in sixteen succeeds."""
    first = coin(request)["score"]
    again = dict(request, item=dict(request["item"], ledger_seed=request["item"]["ledger_seed"] + 1))
    third = dict(request, item=dict(request["item"], ledger_seed=request["item"]["ledger_seed"] + 2))
    return {"score": first * coin(again)["score"] * coin(third)["score"]}


class Adaptive(Case):
    def sized(self, name, **changes):
        self.endpoints.grade = rarely
        adaptive = {"target_signal": 4, "min_rollouts": 16, "max_rollouts": 160}
        return self.make_run(name, run={"steps": STEPS}, checkpoint={"every": 1},
                             **{"batch": {"prompts": 4, "group_size": 4, "adaptive": adaptive}, **changes})

    def done(self, run):
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        return run.digests(STEPS)

    def decisions(self, run):
        shown = subprocess.run([ROLLCALL, "inspect", run.dir, "--batch"], capture_output=True, text=True, timeout=30)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        return shown.stdout

    def test_any_number_of_workers_and_any_number_of_lives_make_the_same_run(self):
        one, three, killed = self.sized("one"), self.sized("three", cluster={"workers": 3}), self.sized("killed", cluster={"workers": 2})
        digests = self.done(one)
        self.assertEqual(self.done(three), digests)
        rounds = [line["rounds"] for line in one.metrics()]
        self.assertGreater(max(rounds), 1, "a step was topped up")
        rollouts = [line["rollouts"] for line in one.metrics()]
        self.endpoints.hold_from(int(rollouts[0]) + 16 + 6)  # behind the first round of the second step, if that is the usual one
        with self.running(killed):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        self.assertEqual(self.done(killed), digests)
        self.assertEqual(self.decisions(killed), self.decisions(one))

    def test_decisions_are_made_again_from_the_journal(self):
        self.decided_again(self.sized("decided"))

    def test_a_penalty_that_comes_off_rewards_later_does_not_change_what_was_decided(self):
        run = self.sized("penalised", algorithm={"kl": {"coefficient": 0.5}, "learning_rate": 1e-3})
        self.decided_again(run)
        self.assertTrue(any(line["reward_penalty_mean"] for line in run.metrics()))

    def decided_again(self, run):
        self.done(run)
        shown = self.decisions(run)
        for line in run.metrics():
            step = line["step"] - 1
            sizes = re.findall(rf"^step {step} +(\d+) tasks x (\d+) rollouts: ", shown, re.MULTILINE)
            self.assertEqual(len(sizes), line["rounds"], shown)
            self.assertEqual(sum(int(tasks) * int(size) for tasks, size in sizes), line["rollouts"], shown)
        logged = re.findall(r"step \d+: \d+ tasks x \d+ rollouts: (.*)", run.log(0))
        self.assertEqual(re.findall(r"rollouts: (.*)", shown), logged)

    def test_what_a_resume_changes_is_decided_by_from_there_on(self):
        run = self.sized("changed")
        code, errors = run.train("--set", "run.steps=2")
        self.assertEqual(code, 0, errors)
        code, errors = run.train("--set", "batch.group_size=3", "--set", "batch.adaptive.target_signal=2")
        self.assertEqual(code, 0, errors)
        self.assertEqual([path.name for path in run.dir.glob("config-*")], ["config-to-step-000002.yaml"])
        sizes = re.findall(r"step (\d+) .* tasks x (\d+) rollouts", self.decisions(run))
        self.assertEqual({size for step, size in sizes if int(step) < 2}, {"4"})
        self.assertEqual({size for step, size in sizes if int(step) >= 2}, {"3"})

    def test_other_settings_are_told_from_those_of_the_run(self):
        run = self.sized("other")
        self.done(run)
        config = run.dir / "config.yaml"
        config.write_text(config.read_text().replace("target_signal: 4", "target_signal: 40"))
        shown = subprocess.run([ROLLCALL, "inspect", run.dir, "--batch"], capture_output=True, text=True, timeout=30)
        self.assertEqual(shown.returncode, 1, shown.stdout)
        self.assertIn("sampled other tasks than these settings would", shown.stderr)

    def test_dynamic_sampling_draws_until_enough_groups_have_a_signal(self):
        run = self.sized("dynamic", batch={"prompts": 4, "group_size": 4, "resample": 5})
        self.done(run)
        for line in run.metrics():
            self.assertTrue(line["groups_signal"] >= 4 or line["rounds"] == 5, line)
            self.assertEqual(line["rollouts"], 16 * line["rounds"])


if __name__ == "__main__":
    unittest.main()
