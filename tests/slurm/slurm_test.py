# SPDX-License-Identifier: Apache-2.0
"""Runs submitted to a real Slurm of four hosts (cluster.py). Whatever happens to one, it ends complete, or goes on when it
is submitted again, with the same weights as an undisturbed run; and nothing of it stays behind on any host."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import cluster  # noqa: E402
import processes  # noqa: E402
from case import Case, environment  # noqa: E402
from endpoints import Endpoints  # noqa: E402
from places import ROLLCALL  # noqa: E402

PER_STEP = 16
MIDDLE = PER_STEP + 8  # the grade in the middle of the second of three steps
SITE = {"time": "5m", "nodes": 2, "memory_per_rank": "300MiB"}


def setUpModule():
    folder = tempfile.mkdtemp(prefix="rollcall-slurm-")
    unittest.addModuleCleanup(shutil.rmtree, folder, ignore_errors=True)
    SlurmCase.cluster = cluster.Cluster(folder)


class SlurmCase(Case):
    def serve(self, raw_reply=None):
        endpoints = Endpoints(raw_reply, host="10.77.0.1")  # where all nodes reach it
        self.addCleanup(endpoints.stop)
        return endpoints

    def three_ranks(self, name, stop_before="30s"):
        # A host that is cut off from the net sends no end of its connections.
        run = self.make_run(name, cluster={"workers": 2, "worker_timeout": "5s", "heartbeat_every": "500ms", "stop_before": stop_before})
        self.addCleanup(self.cancel_all)
        return run

    def cancel_all(self):
        self.endpoints.release()
        cluster.run("scancel", "--user=root")
        self.cluster.wait_for(lambda: not any(self.cluster.jobs()), "no job is left", 30)

    def submit(self, run, *arguments, **site):
        """The ids of the jobs."""
        file = self.folder / "site.yaml"
        file.write_text(json.dumps({**SITE, **site}))
        command = [ROLLCALL, "submit", str(run.file), "--site", str(file), *arguments]
        kept = {**environment(), "SLURM_CONF": os.environ["SLURM_CONF"]}
        done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        return re.search(r"submitted job ([\d,]+) ", done.stdout)[1].split(",")

    def submit_and_hold(self, run, *arguments, **site):
        """Submits a run and returns when it stands still in the middle of its second step."""
        self.endpoints.hold_from(MIDDLE)
        jobs = self.submit(run, *arguments, **site)
        try:
            self.endpoints.wait_until_held()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.slurm_log(run)}") from None
        return jobs

    def slurm_log(self, run):
        return "".join(path.read_text() for path in sorted((run.dir / "log").glob("slurm-*.log")))

    def assert_ends(self, run, job, state="COMPLETED", seconds=90):
        self.assertEqual(self.cluster.wait_for_end(job, seconds), state, self.slurm_log(run))
        self.assert_nothing_left(run)
        self.cluster.wait_for(lambda: not self.cluster.shared_memory(), "shared memory is empty", 5)

    def assert_done_as_undisturbed(self, run):
        self.assertEqual(run.result()["status"], "done", self.slurm_log(run))
        self.assertEqual(run.digests(3), self.undisturbed_digests())


class Submitted(SlurmCase):
    def test_a_run_on_two_hosts_completes(self):
        run = self.three_ranks("plain")
        [job] = self.submit(run)
        self.assert_ends(run, job)
        self.assert_done_as_undisturbed(run)
        hosts = {re.search(r" of plain on (\w+),", run.log(rank))[1] for rank in range(3)}
        self.assertEqual(len(hosts), 2, "the ranks are not on two hosts")

    def test_a_sweep_trains_one_run_for_each_value(self):
        run = self.three_ranks("swept")
        [job] = self.submit(run, "--sweep", "run.seed=1,2", nodes=1)
        for index in (0, 1):
            self.assert_ends(run, f"{job}_{index}")
        runs = run.dir.parent
        weights = [(runs / f"swept-{index}" / "export" / "model.safetensors").read_bytes() for index in (0, 1)]
        self.assertNotEqual(*weights)
        seeds = [re.search(r"seed: (\d)", (runs / f"swept-{index}" / "config.yaml").read_text())[1] for index in (0, 1)]
        self.assertEqual(seeds, ["1", "2"])

    def test_of_a_chain_each_job_goes_on_and_the_rest_ends_at_once(self):
        run = self.three_ranks("chained")
        jobs = self.submit_and_hold(run, "--chain", "3")
        self.assertEqual([self.cluster.state(job) for job in jobs], ["RUNNING", "PENDING", "PENDING"])
        cluster.run("scancel", "--batch", "--signal=TERM", jobs[0])
        self.cluster.wait_for(lambda: self.cluster.state(jobs[0]) == "FAILED", "the first job stops")
        self.assertEqual(self.cluster.job(jobs[0])["ExitCode"], "3:0")
        self.endpoints.release()
        for job in jobs[1:]:
            self.assert_ends(run, job)
        self.assert_done_as_undisturbed(run)


class Disturbed(SlurmCase):
    def test_a_killed_worker_costs_nothing_but_its_rollouts_in_flight(self):
        for rank in (1, 2):  # beside the learner, and on the other host
            with self.subTest(rank=rank):
                run = self.three_ranks(f"bereft{rank}")
                [job] = self.submit_and_hold(run)
                run.signal(signal.SIGKILL, rank)
                self.endpoints.release()
                self.assert_ends(run, job)
                self.assert_done_as_undisturbed(run)
                self.assertIn(f"lost worker {rank}", run.log(0))

    def test_a_requeued_job_goes_on(self):
        run = self.three_ranks("requeued")
        [job] = self.submit_and_hold(run)
        cluster.run("scontrol", "requeue", job)
        self.cluster.wait_for(lambda: self.cluster.state(job) != "RUNNING", "the job is taken from its nodes")
        self.endpoints.release()
        self.assert_ends(run, job)
        self.assertEqual(self.cluster.job(job)["Restarts"], "1")
        self.assert_done_as_undisturbed(run)

    def test_a_cancelled_run_goes_on_when_submitted_again(self):
        run = self.three_ranks("cancelled")
        [job] = self.submit_and_hold(run)
        cluster.run("scancel", job)
        self.assert_ends(run, job, "CANCELLED")
        self.assertFalse((run.dir / "export").exists())
        self.endpoints.release()
        [job] = self.submit(run)
        self.assert_ends(run, job)
        self.assert_done_as_undisturbed(run)

    def check_death_of_node_of(self, rank, name, **site):
        run = self.three_ranks(name)
        [job] = self.submit_and_hold(run, **site)
        node = re.search(rf" of {name} on (\w+),", run.log(rank))[1]
        self.addCleanup(self.cluster.wait_for, lambda: self.cluster.states()[node] == "idle", f"{node} is back", 30)
        self.addCleanup(self.cluster.start_node, node)
        self.cluster.kill_node(node)
        self.endpoints.release()
        return run, job

    def test_a_dead_node_of_workers_is_survived_or_the_job_put_back(self):
        run, job = self.check_death_of_node_of(2, "outlying")
        self.assert_ends(run, job)
        self.assert_done_as_undisturbed(run)

    def test_a_dead_node_of_the_learner_puts_the_job_back(self):
        run, job = self.check_death_of_node_of(0, "leading")
        self.assert_ends(run, job)
        self.assert_done_as_undisturbed(run)


class TimeLimit(SlurmCase):
    def run_of_a_minute(self, name, *arguments):
        """A run, and its jobs: of each it has a minute, held in the middle of its second step."""
        run = self.three_ranks(name, stop_before="60s")
        return run, self.submit_and_hold(run, *arguments, time="2m")

    def test_a_job_at_its_limit_saves_and_puts_itself_back(self):
        run, [job] = self.run_of_a_minute("limited")
        self.cluster.wait_for(lambda: self.cluster.state(job) != "RUNNING", "the job stops before its limit", 110)
        self.endpoints.release()
        self.assert_ends(run, job)
        self.assertEqual(self.cluster.job(job)["Restarts"], "1")
        self.assert_done_as_undisturbed(run)

    def test_where_none_may_be_put_back_the_chain_goes_on(self):
        run, jobs = self.run_of_a_minute("links", "--chain", "2")
        self.cluster.wait_for(lambda: self.cluster.state(jobs[0]) == "FAILED", "the first job stops", 110)
        self.assertEqual(self.cluster.job(jobs[0])["ExitCode"], "3:0")
        self.endpoints.release()
        self.assert_ends(run, jobs[1])
        self.assert_done_as_undisturbed(run)


if __name__ == "__main__":
    cluster.enter()
    unittest.main()
