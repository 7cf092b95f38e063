# SPDX-License-Identifier: Apache-2.0
"""A run that is asked to stop, or whose parts die, ends in order or goes on."""

import os
import signal
import unittest

import processes
from case import Case


class Stop(Case):
    def test_sigterm_leaves_a_resumable_run_and_nothing_else(self):
        run = self.make_run("stopped", cluster={"workers": 2})
        self.endpoints.hold_from(16 + 8)  # in the second step
        process = run.start()
        self.endpoints.wait_until_held()
        run.note_shared_files()
        process.send_signal(signal.SIGTERM)
        code, errors = run.finish(process, seconds=20)  # endpoints that never answer do not keep it
        self.assertEqual(code, 3, errors)
        self.assertEqual(run.result()["status"], "stopped")
        self.assertEqual(run.result()["exit_code"], 3)
        self.assertTrue(run.shared_files, "none were seen")
        self.assert_nothing_left(run)
        self.assertFalse((run.dir / "export").exists())

        self.endpoints.release()
        asked = self.endpoints.requests["/grade"]
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.result()["status"], "done")
        self.assertLess(self.endpoints.requests["/grade"] - asked, 2 * 16, "rollouts in the journal were made again")
        self.assertEqual(run.digests(3), self.undisturbed_digests())

    def test_sigint_to_the_parent_stops_too(self):
        run = self.make_run("interrupted")
        self.endpoints.hold_from(5)
        process = run.start()
        self.endpoints.wait_until_held()
        process.send_signal(signal.SIGINT)
        code, errors = run.finish(process, seconds=20)
        self.assertEqual(code, 3, errors)
        self.assert_nothing_left(run)

    def test_ranks_do_not_outlive_a_killed_parent(self):
        run = self.make_run("orphaned")
        self.endpoints.hold_from(5)
        process = run.start()
        self.endpoints.wait_until_held()
        process.kill()
        process.communicate(timeout=20)
        self.endpoints.release()
        self.assert_nothing_left(run)


class WorkerDeath(Case):
    def check_death_of(self, name, victims, **cluster):
        run = self.make_run(name, cluster={"workers": 2, "worker_timeout": "5s", **cluster})
        self.endpoints.hold_from(16 + 8)
        process = run.start()
        self.endpoints.wait_until_held()
        for rank in victims:
            os.kill(processes.ranks(run.file)[rank], signal.SIGKILL)
        self.endpoints.release()
        return run, process

    def test_a_killed_worker_costs_nothing_but_its_rollouts_in_flight(self):
        run, process = self.check_death_of("bereft", [2])
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.result()["status"], "done")
        self.assert_learnt(run)
        self.assertEqual(run.digests(3), self.undisturbed_digests())
        self.assert_nothing_left(run)

    def test_without_any_worker_the_run_ends_resumable(self):
        run, process = self.check_death_of("alone", [1, 2])
        code, errors = run.finish(process)
        self.assertEqual(code, 3, errors)
        self.assertIn("no rollout worker is left", errors)
        self.assert_nothing_left(run)
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests())

    def test_a_dead_lead_learner_ends_the_run(self):
        run, process = self.check_death_of("headless", [0])
        code, errors = run.finish(process)
        self.assertNotEqual(code, 0)
        self.assertIn("one was killed or crashed", errors)
        self.assert_nothing_left(run)


if __name__ == "__main__":
    unittest.main()
