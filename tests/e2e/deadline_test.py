# SPDX-License-Identifier: Apache-2.0
"""A run in a job that is about to end stops in time, puts the job back into the queue and goes on in its next life."""

import os
import signal
import unittest

from case import Case

LIMIT = 60  # what the job is said to have left, in seconds


class Deadline(Case):
    def setUp(self):
        super().setUp()
        self.slurm = self.folder / "slurm"
        self.slurm.mkdir()
        self.limit = self.slurm / "left"
        self.limit.write_text("UNLIMITED")
        self.command("squeue", f'cat "{self.limit}"')
        self.preempted_at = self.slurm / "preempted-at"
        self.preempted_at.write_text("None")
        self.command("scontrol", f'''
            case "$*" in
            *show*) echo "JobId=17 PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=$(cat "{self.preempted_at}") Requeue=1" ;;
            *) echo "$*" >> "{self.slurm}/said" ;;
            esac''')

    def command(self, name, script):
        """A stand-in for one of Slurm's."""
        file = self.slurm / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def said(self):
        file = self.slurm / "said"
        return file.read_text().splitlines() if file.exists() else []

    def job(self, name, **changes):
        run = self.make_run(name, **changes)
        # Open MPI shall not look for the real one.
        run.variables = {"SLURM_JOB_ID": "17", "PATH": f"{self.slurm}:{os.environ['PATH']}", "OMPI_MCA_plm": "^slurm",
                         "OMPI_MCA_ras": "^slurm,simulator", "OMPI_MCA_btl": "self,vader"}
        return run

    def test_the_clock_stops_the_run_and_the_next_life_ends_it(self):
        run = self.job("timely", cluster={"workers": 2, "stop_before": f"{LIMIT}s", "stop_grace": "20s"})
        self.endpoints.hold_from(16 + 8)
        self.limit.write_text(f"0:{LIMIT + 4}")  # due in four seconds
        process = run.start("--requeue")
        self.endpoints.wait_until_held()
        self.wait_for(lambda: "asked to stop" in run.log(0), "the run is asked to stop")
        held = self.endpoints.requests["/grade"]
        self.endpoints.release()  # what is in flight may end
        code, errors = run.finish(process, seconds=20)
        self.assertEqual(code, 3, errors)
        self.assertIn("the job's time is nearly over", errors)
        self.assertIn("job 17 is queued again", errors)
        self.assertEqual(self.said(), ["requeue 17"])
        self.assertEqual(run.result()["status"], "stopped")
        self.assertIn("job 17 is queued again", run.result()["message"])
        self.assert_nothing_left(run)
        finished = self.endpoints.requests["/grade"]
        self.assertGreaterEqual(finished, held, "rollouts in flight were waited for")

        self.limit.write_text("UNLIMITED")
        code, errors = run.train("--requeue")
        self.assertEqual(code, 0, errors)
        self.assertEqual(self.endpoints.requests["/grade"], 3 * 16, "no rollout was made twice")
        self.assertEqual(run.digests(3), self.undisturbed_digests())
        self.assertEqual(self.said(), ["requeue 17"])

        self.endpoints.stop()  # a run that is done needs nobody
        code, errors = run.train("--requeue")
        self.assertEqual(code, 0, errors)
        self.assertIn("run timely is done", errors)

    def stopped_by(self, number, name, learners=1):
        run = self.job(name, cluster={"learners": learners, "workers": 2})
        self.endpoints.hold_from(16 + 8)
        process = run.start("--requeue")
        self.endpoints.wait_until_held()
        process.send_signal(number)
        self.wait_for(lambda: "asked to stop" in run.log(0), "the run is asked to stop")
        self.endpoints.release()
        code, errors = run.finish(process, seconds=20)
        self.assertEqual(code, 3, errors)
        self.assert_nothing_left(run)
        return run, errors

    def test_sigusr1_is_the_batch_systems_word_for_a_deadline(self):
        self.stopped_by(signal.SIGUSR1, "warned", learners=2)
        self.assertEqual(self.said(), ["requeue 17"])

    def test_sigterm_is_a_persons_word_and_final(self):
        self.stopped_by(signal.SIGTERM, "cancelled")
        self.assertEqual(self.said(), [])

    def lose_lead(self, run, grade):
        """Starts the run and kills its lead learner once it stands still at that grade; the job is put back."""
        self.endpoints.hold_from(grade)
        process = run.start("--requeue")
        self.endpoints.wait_until_held()
        run.signal(signal.SIGKILL, 0)
        code, errors = run.finish(process, seconds=20)
        self.assertEqual(code, 3, errors)
        self.assertEqual(self.said(), ["requeue 17"])

    def test_a_dead_learner_is_replaced_by_the_next_life(self):
        run = self.job("headless", cluster={"workers": 2})
        self.lose_lead(run, grade=16 + 8)
        self.endpoints.release()
        code, errors = run.train("--requeue")
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed_digests())

    def test_a_job_that_brings_the_run_no_further_is_not_queued_again(self):
        run = self.job("stuck", cluster={"workers": 2, "stop_before": f"{LIMIT}s", "stop_grace": "0s"})
        self.endpoints.hold_from(0)
        self.limit.write_text("0:01")
        code, errors = run.train("--requeue")
        self.assertEqual(code, 3, errors)
        self.assertIn("it has brought the run no further", errors)
        self.assertEqual(self.said(), [])

    def test_a_job_that_was_preempted_at_once_is_queued_again(self):
        self.preempted_at.write_text("2026-01-01T00:01:00")
        run = self.job("displaced", cluster={"workers": 2})
        self.lose_lead(run, grade=1)

    def test_where_requeueing_is_not_allowed_the_run_says_what_to_do(self):
        self.command("scontrol", "echo 'Job is not requeueable'; exit 1")
        run, errors = self.stopped_by(signal.SIGUSR1, "once")
        self.assertIn("does not put job 17 back into the queue: Job is not requeueable", errors)
        self.assertEqual(run.result()["status"], "stopped")


if __name__ == "__main__":
    unittest.main()
