# SPDX-License-Identifier: Apache-2.0
"""With policy.max_lag rollouts go on while the learner updates; what is learnt from them can still be made again."""

import collections
import unittest

import journal_file
from case import Case
from replay_test import replay

STEPS, PER_STEP, LAG = 6, 16, 2


class Asynchronous(Case):
    def lagging(self, name, **changes):
        return self.make_run(name, run={"steps": STEPS}, policy={"max_lag": LAG}, checkpoint={"every": 3}, **changes)

    def versions(self, run):
        """Of each row that was learnt from: the step, and the policy versions that sampled it."""
        with journal_file.open_journal(run.journal()) as file:
            offsets, versions, actions = file["offsets"][:], file["token_version"][:], file["is_action"][:]
        spans = [(int(use["step"]), slice(*offsets[use["row"] : use["row"] + 2])) for use in journal_file.uses(run.journal())]
        return [(step, set(versions[span][actions[span] == 1].tolist())) for step, span in spans]

    def check_whole(self, run):
        """Every rollout that was planned was learnt from once, by a policy near enough, and every update can be made again."""
        for step, versions in self.versions(run):
            self.assertTrue(all(step - LAG <= version <= step for version in versions), (step, versions))
        used = collections.Counter(int(use["row"]) for use in journal_file.uses(run.journal()))
        self.assertEqual((len(used), set(used.values())), (STEPS * PER_STEP, {1}))
        rows = journal_file.check_rows(run.journal(), self)
        self.assertEqual(len({(int(row["group"]), int(row["member"])) for row in rows if row["split"] == journal_file.TRAIN}), STEPS * PER_STEP)
        self.assertEqual([line["groups_dropped"] for line in run.metrics() if "loss" in line], [0] * STEPS)
        done = replay(run.dir, STEPS - 1)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_rollouts_of_later_steps_are_made_with_the_policy_at_hand(self):
        run = self.lagging("ahead", cluster={"workers": 2})
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assert_learnt(run)
        self.check_whole(run)
        lines = [line for line in run.metrics() if "loss" in line]
        self.assertEqual((lines[0]["version_lag_max"], lines[0]["logprob_gap_max"]), (0, 0))
        self.assertGreater(max(line["version_lag_mean"] for line in lines), 0, "nothing was sampled ahead")
        self.assertGreater(max(line["logprob_gap_max"] for line in lines[1:]), 0)
        self.assertEqual(replay(run.dir, 4).returncode, 0)

    def test_a_rollout_that_waits_goes_on_with_newer_weights(self):
        """Of each group two members call slow tools."""
        run = self.lagging("waits")
        self.endpoints.tool_waits = lambda headers: 0.2 if headers["X-Rft-Rollout-Id"].endswith(("_0", "_1")) else 0
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.check_whole(run)
        self.assertTrue(any(len(versions) > 1 for _, versions in self.versions(run)), "no rollout met a newer policy")
        self.assertGreater(max(line.get("mixed_version_share", 0) for line in run.metrics()), 0)

    def test_without_in_flight_updates_one_version_samples_a_rollout(self):
        run = self.make_run("drains", run={"steps": STEPS}, policy={"max_lag": LAG, "in_flight_updates": False}, checkpoint={"every": 3},
                            data={"valid": str(self.folder / "data" / "valid.jsonl")}, eval={"every": 2})
        self.endpoints.tool_waits = lambda headers: 0.2 if headers["X-Rft-Rollout-Id"].endswith(("_0", "_1")) else 0
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.check_whole(run)
        self.assertEqual({len(versions) for _, versions in self.versions(run)}, {1})
        lines = [line for line in run.metrics() if "loss" in line]
        self.assertEqual({line["mixed_version_share"] for line in lines}, {0})
        self.assertGreater(max(line["version_lag_mean"] for line in lines), 0, "nothing was sampled ahead")

    def test_after_kill_9_what_was_sampled_ahead_is_used(self):
        """The first step waits for some grades while those of the next arrive, and is committed with them; the second is never whole."""
        run = self.lagging("killed")
        slow = {"0": 2, "1": 30}  # seconds, by step
        self.endpoints.grade_waits = lambda headers: slow.get(headers["X-Rft-Step"], 0) if headers["X-Rft-Rollout-Id"].endswith("_0") else 0
        with self.running(run):
            self.wait_for(lambda: self.endpoints.requests["/grade"] > 0 and journal_file.committed_rows(run.journal()) > 0, "the first step does not end")
        self.endpoints.grade_waits = lambda headers: 0
        kept = len(journal_file.check_rows(run.journal(), self))
        self.assertGreater(kept, PER_STEP)
        before = self.endpoints.requests["/grade"]
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(self.endpoints.requests["/grade"] - before, STEPS * PER_STEP - kept, "what the journal kept is not sampled again")
        self.check_whole(run)

    def test_a_stop_lets_rollouts_of_later_steps_end(self):
        run = self.lagging("stopped", cluster={"stop_grace": "20s"})
        self.endpoints.hold_from(3 * PER_STEP)
        process = run.start()
        self.endpoints.wait_until_held()
        process.send_signal(2)
        self.wait_for(lambda: "asked to stop" in run.log(0), "the run does not hear")
        self.endpoints.release()
        code, errors = run.finish(process)
        self.assertEqual(code, 3, errors)
        kept = len(journal_file.check_rows(run.journal(), self))
        before = self.endpoints.requests["/grade"]
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(before, kept, "what was graded is in the journal")
        self.check_whole(run)

    def test_the_batch_may_grow_and_the_lag_may_not_change(self):
        adaptive = {"target_signal": 6, "min_rollouts": 16, "max_rollouts": 160}
        run = self.lagging("grows", batch={"prompts": 4, "group_size": 4, "adaptive": adaptive})
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertGreater(max(line.get("rounds", 0) for line in run.metrics()), 1)
        done = replay(run.dir, STEPS - 1)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        other = self.make_run("grows", run={"steps": STEPS + 1}, policy={"max_lag": 1}, batch={"prompts": 4, "group_size": 4, "adaptive": adaptive})
        code, errors = other.train()
        self.assertEqual(code, 2, errors)
        self.assertIn("policy.max_lag: 2 -> 1", errors)

    def test_a_run_that_is_made_longer_goes_on(self):
        run = self.lagging("longer")
        self.assertEqual(run.train()[0], 0)
        longer = self.make_run("longer", run={"steps": STEPS + 2}, policy={"max_lag": LAG}, checkpoint={"every": 3})
        code, errors = longer.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual([line["step"] for line in longer.metrics() if "loss" in line], list(range(1, STEPS + 3)))
        done = replay(longer.dir, STEPS + 1)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
