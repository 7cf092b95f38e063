# SPDX-License-Identifier: Apache-2.0
"""A run that was cut off goes on as if nothing had happened."""

import os
import shutil
import unittest

import journal_file
from case import Case
from places import LEDGER

STEPS, PER_STEP = 6, 16


class Resume(Case):
    def six_steps(self, name, every=3):
        return self.make_run(name, run={"steps": STEPS}, checkpoint={"every": every}, cluster={"workers": 2})

    def assert_same_end(self, run):
        """Returns how many rollouts it took."""
        before = self.endpoints.requests["/grade"]
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        graded = self.endpoints.requests["/grade"] - before
        self.assertEqual(run.digests(STEPS), self.undisturbed_digests(STEPS))
        steps = [line["step"] for line in run.metrics()]
        self.assertEqual(steps, list(range(1, STEPS + 1)))
        return graded

    def cut_off_in_step_five(self, run):
        self.endpoints.hold_from(4 * PER_STEP + 8)
        with self.running(run):
            self.endpoints.wait_until_held()
        self.endpoints.release()

    def test_after_kill_9_with_the_checkpoint_a_step_behind(self):
        run = self.six_steps("behind", every=3)
        self.cut_off_in_step_five(run)
        self.assertEqual(run.checkpoints(), ["step-000003"])
        kept = len(journal_file.check_rows(run.journal(), self))
        self.assertGreaterEqual(kept, 4 * PER_STEP)

        graded = self.assert_same_end(run)
        self.assertEqual(graded, STEPS * PER_STEP - kept, "what the journal kept is not sampled again")

    def test_after_kill_9_with_a_checkpoint_of_every_step(self):
        run = self.six_steps("every", every=1)
        self.cut_off_in_step_five(run)
        self.assertEqual(run.checkpoints()[-1], "step-000004")
        self.assert_same_end(run)

    def test_a_journal_that_is_cut_short_is_told_and_put_back(self):
        run = self.six_steps("cut", every=2)
        self.cut_off_in_step_five(run)
        whole = run.journal().read_bytes()
        for damage in (whole[: len(whole) // 2], b"", None):
            run.journal().unlink()
            if damage is not None:
                run.journal().write_bytes(damage)
            code, errors = run.train()
            self.assertEqual(code, 3, errors)
            self.assertIn("learner-0.h5", errors)
            self.assertIn("what to do: ", errors)
            self.assertEqual(run.result()["exit_code"], 3)
        run.journal().write_bytes(whole)
        self.assert_same_end(run)

    def test_a_damaged_journal_hangs_no_start(self):
        run = self.six_steps("damaged", every=2)
        self.cut_off_in_step_five(run)
        whole = run.journal().read_bytes()
        for place in (120, 252, 700, 3000):
            damaged = bytearray(whole)
            damaged[-place] ^= 1
            run.journal().write_bytes(damaged)
            code, errors = run.train()  # within its time
            self.assertIn(code, (0, 3), errors)
            if code == 0:  # nothing that is needed was damaged
                return self.assertEqual(run.digests(6), self.undisturbed_digests(6))
        run.journal().write_bytes(whole)
        self.assert_same_end(run)

    def test_a_journal_that_goes_while_the_run_writes_to_it_is_noticed(self):
        for name, change in (("emptied", lambda path: os.truncate(path, 0)), ("deleted", os.unlink),
                             ("halved", lambda path: os.truncate(path, path.stat().st_size // 2))):
            run = self.six_steps(name, every=1)
            self.endpoints.hold_from(24)
            process = run.start()
            self.endpoints.wait_until_held()
            change(run.journal())
            self.endpoints.release()
            code, errors = run.finish(process)
            self.assertEqual(code, 3, errors)
            self.assertRegex(errors, "journal .*learner-0.h5: was (cut short|moved, replaced or deleted) while the run wrote to it")
            self.assertEqual(run.result()["step"], 1, "no update rests on what is gone")

    def test_after_one_kill_9_upon_another(self):
        run = self.six_steps("often", every=2)
        for grade in (3, 20, 33, 17):
            self.endpoints.hold_from(grade)
            with self.running(run):
                self.endpoints.wait_until_held()
                self.endpoints.release()  # the end comes at any moment after this
        self.assert_same_end(run)

    def test_rollouts_of_other_weights_are_not_used(self):
        model = self.folder / "model"
        shutil.copytree(LEDGER / "model", model)
        run = self.make_run("swapped", model={"path": str(model)})
        self.endpoints.hold_from(8)
        with self.running(run):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        weights = model / "model.safetensors"
        changed = bytearray(weights.read_bytes())
        changed[-2] ^= 1
        weights.write_bytes(changed)
        code, errors = run.train()
        self.assertEqual(code, 2, errors)
        self.assertIn("model.path, its weights: xxh3", errors)
        shutil.copy(LEDGER / "model" / "model.safetensors", weights)
        self.assertEqual(run.train()[0], 0)

    def assert_refused(self, run, *words, arguments=(), exit_code=2):
        """The start is refused and changes nothing that a later one needs."""
        before = (run.dir / "config.yaml").read_text(), run.metrics(), run.checkpoints()
        code, errors = run.train(*arguments)
        self.assertEqual(code, exit_code, errors)
        for word in (*words, "what to do", "run.name"):
            self.assertIn(word, errors)
        self.assertEqual(((run.dir / "config.yaml").read_text(), run.metrics(), run.checkpoints()), before)

    def test_a_changed_run_is_refused_until_the_change_is_undone(self):
        run = self.six_steps("changed", every=3)
        self.cut_off_in_step_five(run)
        self.assert_refused(run, "run.seed: 1 -> 2", arguments=["--set", "run.seed=2"])
        self.assert_refused(run, "batch.group_size: 4 -> 8", "step that is open", arguments=["--set", "batch.group_size=8"])
        train = self.folder / "data" / "train.jsonl"
        rows = train.read_text()
        train.write_text("".join(reversed(rows.splitlines(keepends=True))))
        self.assert_refused(run, "data.train: 16 rows, xxh3")
        train.write_text(rows)
        journal, aside = run.journal(), self.folder / "aside.h5"
        journal.rename(aside)
        self.assert_refused(run, "step-000003 counts 48 rows", "is not there", exit_code=3)
        aside.rename(journal)
        self.assert_same_end(run)

    def test_a_harmless_change_is_told_in_one_line(self):
        run = self.trained("shorter", run={"steps": 2}, cluster={"workers": 2})
        code, errors = run.train("--set", "run.steps=3", "--set", "cluster.workers=1", "--set", "batch.group_size=3")
        self.assertEqual(code, 0, errors)
        told = "changed since the run began: batch.group_size: 4 -> 3; cluster.workers: 2 -> 1; run.steps: 2 -> 3"
        self.assertIn(told, errors)

    def test_rollouts_behind_a_changed_update_are_sampled_again(self):
        change = ("--set", "algorithm.learning_rate=5e-4")
        run = self.six_steps("rate", every=3)
        self.cut_off_in_step_five(run)
        before = self.endpoints.requests["/grade"]
        code, errors = run.train(*change)
        self.assertEqual(code, 0, errors)
        self.assertEqual(self.endpoints.requests["/grade"] - before, 2 * PER_STEP, "step 4 comes from the journal")
        changed_at_three = self.trained("rate3", run={"steps": 3}, cluster={"workers": 2})
        code, errors = changed_at_three.train(*change, "--set", f"run.steps={STEPS}")
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(STEPS)["model.safetensors"], changed_at_three.digests(STEPS)["model.safetensors"])

    def test_steps_from_the_journal_have_no_speed(self):
        run = self.six_steps("speed", every=3)
        self.cut_off_in_step_five(run)
        (run.dir / "result.json").write_text("garbage")
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertIn("result.json holds no result", errors)
        speeds = [line["tokens_per_second"] for line in run.metrics()]
        self.assertIsNone(speeds[3], "step 4 is made again from the journal")
        for speed in (*speeds[:3], *speeds[4:]):
            self.assertTrue(0 < speed < 1e6, speeds)
        self.assertIn("from the journal", errors)

    def test_a_finished_run_stays_as_it_is(self):
        run = self.trained("done", run={"steps": 2})
        before, asked = run.digests(2), dict(self.endpoints.requests)
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(2), before)
        self.assertEqual(self.endpoints.requests, asked)

    def test_more_steps_go_on_from_the_end(self):
        run = self.make_run("longer", run={"steps": 3}, cluster={"workers": 2})
        self.assertEqual(run.train()[0], 0)
        code, errors = run.train("--set", f"run.steps={STEPS}")
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(STEPS), self.undisturbed_digests(STEPS))

    def test_a_finished_run_goes_on_with_other_limits(self):
        valid = self.folder / "data" / "valid.jsonl"
        for every in (1, 10):  # the last evaluation follows the checkpoint of the last step, or precedes it
            run = self.make_run(f"wider-{every}", run={"steps": 1}, checkpoint={"every": every}, data={"valid": str(valid)})
            self.assertEqual(run.train()[0], 0)
            code, errors = run.train("--set", "run.steps=2", "--set", "batch.group_size=5")
            self.assertEqual(code, 0, errors)
            self.assertIn("batch.group_size: 4 -> 5", errors)

    def test_evaluations_do_not_shift_what_follows(self):
        valid = self.folder / "data" / "valid.jsonl"
        settings = {"run": {"steps": 4}, "checkpoint": {"every": 2}, "eval": {"every": 2}, "data": {"valid": str(valid)}}
        run = self.make_run("evaluated", **settings)
        self.endpoints.hold_from(4 + 2 * PER_STEP + 4 + 8)  # in the step after the evaluation after step 2
        with self.running(run):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        undisturbed = self.trained("undisturbed", **settings)
        self.assertEqual(run.digests(4), undisturbed.digests(4))
        evaluated = [line["step"] for line in run.metrics() if "eval_pass_at_1" in line]
        self.assertEqual(evaluated, [0, 2, 4])


if __name__ == "__main__":
    unittest.main()
