# SPDX-License-Identifier: Apache-2.0
"""A run that is asked to stop, or whose parts die, ends in order or goes on."""

import os
import signal
import time
import unittest

import processes
from case import Case


class Stop(Case):
    def test_sigterm_leaves_a_resumable_run_and_nothing_else(self):
        run = self.make_run("stopped", cluster={"workers": 2})
        self.endpoints.hold_from(16 + 8)  # in the second step
        process = run.start()
        self.endpoints.wait_until_held()
        run.note_files()
        self.assertTrue(processes.shared_memory(run.file), "the ranks share none")
        self.assertTrue(run.files, "the launcher has none")
        process.send_signal(signal.SIGTERM)
        code, errors = run.finish(process, seconds=20)  # endpoints that never answer do not keep it
        self.assertEqual(code, 3, errors)
        self.assertEqual(run.result()["status"], "stopped")
        self.assertEqual(run.result()["exit_code"], 3)
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


    def test_a_killed_mpirun_leaves_a_resumable_run(self):
        run = self.make_run("launcherless", cluster={"workers": 2})
        self.endpoints.hold_from(16 + 8)
        process = run.start()
        self.endpoints.wait_until_held()
        os.kill(processes.mpirun(run.file), signal.SIGKILL)
        code, errors = run.finish(process, seconds=20)
        self.assertEqual(code, 3, errors)
        self.assertIn("mpirun was killed", errors)
        self.assertEqual((run.result()["status"], run.result()["exit_code"]), ("failed", 3))
        self.assert_nothing_left(run)
        self.endpoints.release()
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests())


class WorkerDeath(Case):
    def check_death_of(self, name, victims, **cluster):
        run = self.make_run(name, cluster={"workers": 2, "worker_timeout": "5s", **cluster})
        self.endpoints.hold_from(16 + 8)
        process = run.start()
        self.endpoints.wait_until_held()
        run.signal(signal.SIGKILL, *victims)
        self.endpoints.release()
        return run, process

    def test_a_killed_worker_costs_nothing_but_its_rollouts_in_flight(self):
        run, process = self.check_death_of("bereft", [2])
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.result()["status"], "done")
        self.assert_learnt(run)
        self.assertEqual(run.digests(3), self.undisturbed_digests())
        self.assertEqual([(line["workers"], line["workers_lost"]) for line in run.metrics()], [(2, 0), (1, 1), (1, 0)])
        self.assertIn("lost worker 2 (its process ended) with", run.log(0))
        self.assertIn("1 workers were lost", (run.dir / "report.html").read_text())
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

    def test_a_worker_that_fails_costs_nothing_but_itself(self):
        run = self.make_run("odd", cluster={"workers": 2})
        (run.dir / "log" / "rank-2.log").mkdir(parents=True)
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertIn("lost worker 2 (it failed: cannot write the log file", errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests())
        self.assert_nothing_left(run)

    def test_a_run_whose_only_worker_fails_says_why(self):
        run = self.make_run("odd", cluster={"workers": 1})
        (run.dir / "log" / "rank-1.log").mkdir(parents=True)
        code, errors = run.train()
        self.assertEqual(code, 3, errors)
        self.assertIn("no rollout worker is left; the last that failed was worker 1: cannot write the log file", errors)
        self.assertEqual(run.result()["status"], "failed")
        self.assert_nothing_left(run)

    def test_silent_workers_that_come_back_are_sent_away(self):
        run = self.make_run("silent", cluster={"workers": 4, "worker_timeout": "3s", "heartbeat_every": "500ms"})
        self.endpoints.hold_from(16)  # the last of the first step: two of the silent have nothing to do and are sent more
        process = run.start()
        self.endpoints.wait_until_held()
        run.signal(signal.SIGSTOP, 2, 3, 4)
        self.endpoints.release()
        self.endpoints.hold_from(16 + 5)  # in the third step, which has other weights than what they were sent
        self.endpoints.wait_until_held()
        run.signal(signal.SIGCONT, 2, 3, 4)
        self.wait_for(lambda: not {2, 3, 4} & set(processes.ranks(run.file)), "the late workers leave")
        self.endpoints.release()
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests())
        for rank in (2, 3, 4):
            self.assertIn(f"lost worker {rank} (silent for", run.log(0))
            self.assertIn("left with code 0", run.log(rank))
        self.assert_nothing_left(run)

    def test_a_worker_that_stays_silent_does_not_keep_the_run(self):
        run = self.make_run("mute", cluster={"workers": 2, "worker_timeout": "2s", "heartbeat_every": "200ms"})
        self.endpoints.hold_from(16 + 8)
        process = run.start()
        self.endpoints.wait_until_held()
        run.signal(signal.SIGSTOP, 2)
        self.endpoints.release()
        code, errors = run.finish(process, seconds=40)
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.result()["status"], "done")
        self.assert_nothing_left(run)


class LearnerDeath(Case):
    def held_with_two_learners(self, name):
        run = self.make_run(name, cluster={"learners": 2, "workers": 2})
        self.endpoints.hold_from(16 + 8)
        process = run.start()
        self.endpoints.wait_until_held()
        run.note_files()
        return run, process

    def check_death_of(self, rank):
        run, process = self.held_with_two_learners(f"learner{rank}")
        run.signal(signal.SIGKILL, rank)
        code, errors = run.finish(process, seconds=10)  # though the step is held
        self.assertEqual(code, 3, errors)
        self.assertIn(f"rank {rank}, ", errors)
        self.assertIn("was killed or crashed", errors)
        result = run.result()
        self.assertEqual((result["status"], result["exit_code"]), ("failed", 3))
        self.assertIn(f"rank {rank}, ", result["message"])
        self.assert_nothing_left(run)
        self.endpoints.release()
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests(learners=2))

    def test_a_dead_lead_learner_ends_the_run(self):
        self.check_death_of(0)

    def test_another_dead_learner_ends_the_run(self):
        self.check_death_of(1)

    def test_a_second_request_ends_learners_that_wait_for_each_other(self):
        run, process = self.held_with_two_learners("hung")
        run.signal(signal.SIGSTOP, 1)
        self.endpoints.release()
        self.wait_for(lambda: len(run.metrics()) == 1, "the first step")
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        code, errors = run.finish(process, seconds=10)
        self.assertEqual(code, 3, errors)
        self.assertEqual((run.result()["status"], run.result()["exit_code"]), ("stopped", 3))
        self.assert_nothing_left(run)

    def check_hang_of(self, rank, learners, says):
        run = self.make_run(f"hung{rank}of{learners}", cluster={
            "learners": learners, "workers": 2, "learner_timeout": "2s", "heartbeat_every": "200ms"})
        run.variables = {"ROLLCALL_FAULTS": f"{rank}:update:2:hang:60000"}
        code, errors = run.train(seconds=30)
        self.assertEqual(code, 3, errors)
        self.assertRegex(errors, says)
        self.assertEqual((run.result()["status"], run.result()["exit_code"]), ("failed", 3))
        self.assertRegex(run.result()["message"], says)
        self.assert_nothing_left(run)
        run.variables = {}
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests(learners=learners))

    def test_learners_do_not_wait_for_ever_for_one_that_hangs(self):
        workers_say = "|rank 0, the lead learner, hangs"  # who notices first
        for rank, also in ((0, workers_say), (1, "")):
            with self.subTest(rank=rank):
                self.check_hang_of(rank, 2, f"nothing was heard of rank {rank}, a learner, for 2 s{also}")

    def test_workers_do_not_wait_for_ever_for_a_learner_that_hangs(self):
        self.check_hang_of(0, 1, "rank 0, the lead learner, hangs")

    def test_learners_wait_longer_for_rollouts_than_for_each_other(self):
        run = self.make_run("patient", cluster={"learners": 2, "workers": 2, "learner_timeout": "2s", "heartbeat_every": "200ms"})
        self.endpoints.hold_from(16 + 8)
        process = run.start()
        self.endpoints.wait_until_held()
        time.sleep(5)
        self.endpoints.release()
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests(learners=2))

    def test_ranks_that_all_stood_still_go_on(self):
        run = self.make_run("suspended", cluster={"learners": 2, "workers": 2, "learner_timeout": "2s", "heartbeat_every": "200ms"})
        self.endpoints.hold_from(16 + 8)
        process = run.start()
        self.endpoints.wait_until_held()
        run.signal(signal.SIGSTOP, *range(4))
        time.sleep(5)
        run.signal(signal.SIGCONT, *range(4))
        self.endpoints.release()
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests(learners=2))

    def test_what_another_rank_fails_of_is_recorded(self):
        run = self.make_run("unloggable", cluster={"learners": 2})
        (run.dir / "log" / "rank-1.log").mkdir(parents=True)
        code, errors = run.train()
        self.assertEqual(code, 1, errors)
        self.assertIn("cannot write the log file", errors)
        result = run.result()
        self.assertEqual((result["status"], result["exit_code"]), ("failed", 1))
        self.assertIn("cannot write the log file", result["message"])
        self.assert_nothing_left(run)


class Logs(Case):
    def test_a_log_tells_its_ranks_story(self):
        run = self.trained("told", cluster={"learners": 2, "workers": 1})
        lead, follower, worker = (run.log(rank) for rank in range(3))
        for text, role in ((lead, "lead learner of told"), (follower, "learner of told"), (worker, "rollout worker of told")):
            self.assertIn(role, text)
            self.assertIn("seed 1", text)
            self.assertIn("left with code 0", text)
        for words in ("worker 2 joined", "step 1/3  reward", "step 3/3  reward", "saved ", "worker 2 left"):
            self.assertIn(words, lead)
        for version in range(3):
            self.assertIn(f"policy version {version} loaded", worker)


if __name__ == "__main__":
    unittest.main()
