# SPDX-License-Identifier: Apache-2.0
"""What a run watches by itself: it warns, stops behind a checkpoint, or leaves an update out (docs/alarms.md)."""

import shutil
import unittest

from case import Case


class Alarms(Case):
    def run_with_canaries(self, name, **alarms):
        """Canaries that can be solved, as those of a grader that is exploited."""
        data = self.folder / "data"
        shutil.copy(data / "train.jsonl", data / "canaries.jsonl")
        files = {split: str(data / f"{split}.jsonl") for split in ("train", "valid", "canaries")}
        return self.make_run(name, data=files, alarms=alarms)

    def test_canaries_that_pass_are_told(self):
        run = self.run_with_canaries("warned")
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertRegex(errors, r"rollouts of canaries pass, which cannot be solved \(alarms\.canary\)")
        evaluations = [line for line in run.metrics() if "eval_pass_at_1" in line]
        self.assertEqual(evaluations[0]["eval_tasks"], 4, "canaries are no held-out tasks")
        self.assertGreater(evaluations[0]["canary_pass_rate"], 0)
        self.assertEqual(evaluations[0]["alarm.canary"], 1)

    def test_an_alarm_may_stop_a_run_that_goes_on_when_started_again(self):
        run = self.run_with_canaries("stopped", canary="stop")
        code, errors = run.train()
        self.assertEqual(code, 4, errors)
        self.assertIn("alarms.canary", errors)
        self.assertEqual((run.result()["status"], run.result()["exit_code"]), ("failed", 4))
        self.assertEqual(run.checkpoints(), ["step-000000"])
        code, errors = run.train()
        self.assertEqual(code, 4, "as long as it shall stop")
        self.assertIn("alarms.canary", errors)
        self.assertFalse((run.dir / "export").exists())
        code, errors = run.train("--set", "alarms.canary=warn")
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.result()["status"], "done")

    def test_without_alarms_canaries_are_only_counted(self):
        run = self.run_with_canaries("silent", canary="off")
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertNotIn("canaries", errors)
        self.assertIn("canary_pass_rate", run.metrics()[0])

    def test_a_second_grader_is_asked_of_held_out_rollouts_beside_the_first(self):
        doubter = self.serve((200, b'{"score": 0}'))
        second = {"second": {"url": doubter.url("/grade")}}
        data = {split: str(self.folder / "data" / f"{split}.jsonl") for split in ("train", "valid")}
        run = self.make_run("beside", data=data, grader=second)
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        evaluations = [line for line in run.metrics() if "eval_pass_at_1" in line]
        self.assertEqual([line["eval_second_pass_at_1"] for line in evaluations], [0, 0])
        self.assertGreater(sum(line["eval_pass_at_1"] for line in evaluations), 0, "the grade that counts is the first one's")

    def test_updates_far_above_the_usual_are_left_out_and_the_third_goes_back(self):
        settings = {"run": {"steps": 16}, "alarms": {"grad_norm": 0.01}, "checkpoint": {"every": 5},  # all are far above
                    "algorithm": {"learning_rate": 1e-4}}  # outcomes keep differing
        run = self.make_run("spiked", **settings)
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        lines = [line for line in run.metrics() if "gradient_spikes" in line]
        updates = [line["gradient_spikes"] for line in lines if line["grad_norm_l2"]]
        self.assertEqual(updates[:10], [0] * 10, "the usual norm is known after ten updates")
        self.assertTrue(all(updates[10:]), updates)
        self.assertGreaterEqual(len(updates), 13)
        self.assertIn("the policy goes back to step-000010", errors)
        again = self.make_run("again", **settings)
        again.train("--set", "run.steps=12")
        code, errors = again.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(again.digests(16), run.digests(16))


if __name__ == "__main__":
    unittest.main()
