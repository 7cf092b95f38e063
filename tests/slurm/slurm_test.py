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
import time
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


def node_of(run, rank):
    return re.search(rf" of {run.name} on (\w+),", run.log(rank))[1]


def setUpModule():
    folder = tempfile.mkdtemp(prefix="rollcall-slurm-")
    unittest.addModuleCleanup(shutil.rmtree, folder, ignore_errors=True)
    SlurmCase.cluster = cluster.Cluster(folder)


class SlurmCase(Case):
    def setUp(self):
        super().setUp()
        self.blows = {}

    def serve(self, raw_reply=None):
        endpoints = Endpoints(raw_reply, host="10.77.0.1")  # where all nodes reach it
        self.addCleanup(endpoints.stop)
        return endpoints

    def three_ranks(self, name, stop_before="30s"):
        # A host that is cut off from the net sends no end of its connections.
        run = self.make_run(name, cluster={"workers": 2, "worker_timeout": "5s", "heartbeat_every": "500ms", "stop_before": stop_before})
        self.addCleanup(self.cancel_all)
        return run

    def struck(self, *runs):
        """A fault has just come upon them: says in the end how long it took them to make the next step."""
        self.blows.update({run.name: time.time() for run in runs})

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

    def submit_and_hold(self, run, *arguments, at=MIDDLE, **site):
        """Submits a run and returns when it stands still at that grade, in the middle of its second step."""
        self.endpoints.hold_from(at)
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
        if run.name in self.blows:
            seconds = run.metrics()[1]["unix_seconds"] - self.blows[run.name]
            print(f"{self.id().rpartition('.')[2]}: {run.name} made its next step {seconds:.1f} s after the fault", file=sys.stderr)


class Submitted(SlurmCase):
    def test_a_run_on_two_hosts_completes(self):
        run = self.three_ranks("plain")
        [job] = self.submit(run)
        self.assert_ends(run, job)
        self.assert_done_as_undisturbed(run)
        hosts = {node_of(run, rank) for rank in range(3)}
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
                self.struck(run)
                self.endpoints.release()
                self.assert_ends(run, job)
                self.assert_done_as_undisturbed(run)
                self.assertIn(f"lost worker {rank}", run.log(0))

    def test_a_requeued_job_goes_on(self):
        run = self.three_ranks("requeued")
        [job] = self.submit_and_hold(run)
        cluster.run("scontrol", "requeue", job)
        self.struck(run)
        self.cluster.wait_for(lambda: self.cluster.is_off(job), "the job is taken from its nodes")
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
        self.struck(run)
        self.assert_ends(run, job)
        self.assert_done_as_undisturbed(run)

    def kill_node(self, node):
        self.addCleanup(self.cluster.wait_for, lambda: self.cluster.states()[node] == "idle", f"{node} is back", 30)
        self.addCleanup(self.cluster.start_node, node)
        self.cluster.kill_node(node)

    def submit_and_kill_workers_node(self, name, *arguments):
        run = self.three_ranks(name)
        jobs = self.submit_and_hold(run, *arguments)
        self.kill_node(node_of(run, 2))
        return run, *jobs

    def test_a_dead_node_of_workers_is_survived_or_the_job_put_back(self):
        run, job = self.submit_and_kill_workers_node("outlying")
        self.struck(run)
        self.endpoints.release()
        self.assert_ends(run, job)
        self.assert_done_as_undisturbed(run)

    def test_after_the_death_of_a_node_the_next_of_a_chain_goes_on(self):
        run, job, following = self.submit_and_kill_workers_node("relayed", "--chain", "2")
        self.assertEqual(self.cluster.wait_for_end(job), "NODE_FAIL")
        self.struck(run)
        self.endpoints.release()
        self.assert_ends(run, following)
        self.assert_done_as_undisturbed(run)

    def test_a_dead_node_of_the_learner_puts_the_job_back_or_the_run_goes_on_when_submitted_again(self):
        """Two runs on the same nodes, of which one may be put back, for Slurm takes long to miss that node."""
        queued, queued_endpoints = self.three_ranks("leading"), self.endpoints
        [job] = self.submit_and_hold(queued)
        self.endpoints = self.serve()
        unqueued = self.three_ranks("unqueued")
        [final] = self.submit_and_hold(unqueued, requeue=False)
        self.assertEqual(node_of(queued, 0), node_of(unqueued, 0))
        self.kill_node(node_of(queued, 0))
        self.struck(queued)
        for endpoints in (queued_endpoints, self.endpoints):
            endpoints.release()
        self.assert_ends(unqueued, final, "NODE_FAIL")
        [again] = self.submit(unqueued, requeue=False)
        self.struck(unqueued)
        for run, ending in ((queued, job), (unqueued, again)):
            self.assert_ends(run, ending)
            self.assert_done_as_undisturbed(run)

    def check_preemption(self, nodes, grade):
        run = self.three_ranks(f"yielding{nodes}at{grade}")
        [job] = self.submit_and_hold(run, nodes=nodes, at=grade)
        urgent = cluster.run("sbatch", "--parsable", "--partition=urgent", "--nodes=4", "--exclusive", "--chdir=/",
                             "--output=/dev/null", "--wrap=true").strip()
        self.struck(run)
        self.cluster.wait_for(lambda: self.cluster.job(job).get("Restarts") == "1", "the job is put back")
        self.endpoints.release()
        self.assertEqual(self.cluster.wait_for_end(urgent), "COMPLETED")
        self.assert_ends(run, job)
        self.assertEqual(self.cluster.job(job)["Restarts"], "1")
        self.assert_done_as_undisturbed(run)
        return run

    def test_a_preempted_job_goes_on(self):
        for nodes, grade in ((1, MIDDLE), (2, 1)):  # on two, mpirun has a step that Slurm warns by SIGTERM
            with self.subTest(nodes=nodes, grade=grade):
                self.check_preemption(nodes, grade)

    def test_a_job_that_is_warned_of_its_preemption_saves_in_order(self):
        self.addCleanup(self.cluster.configure)
        self.cluster.configure("SlurmctldParameters=preempt_send_user_signal\n")
        run = self.check_preemption(2, MIDDLE)
        self.assertIn("stopped at step", run.log(0))
        self.assertIn("is queued again", self.slurm_log(run))


class TimeLimit(SlurmCase):
    def run_of_its_own(self, name):
        """A run and the endpoints that only it has."""
        self.endpoints = self.serve()
        return self.three_ranks(name, stop_before="60s"), self.endpoints

    def test_jobs_at_their_limit_save_and_go_on(self):
        """All at once, for each takes a minute: a job that puts itself back, a chain, and an array of two."""
        alone, alone_endpoints = self.run_of_its_own("limited")
        [job] = self.submit_and_hold(alone, time="2m")
        chained, chained_endpoints = self.run_of_its_own("links")
        links = self.submit_and_hold(chained, "--chain", "2", time="2m")
        first, first_endpoints = self.run_of_its_own("swept-0")
        second, second_endpoints = self.run_of_its_own("swept-1")
        graders = [endpoints.url("/grade") for endpoints in (first_endpoints, second_endpoints)]
        swept = self.three_ranks("swept", stop_before="60s")
        first_endpoints.hold_from(MIDDLE)
        [array] = self.submit_and_hold(swept, "--sweep", "grader.url=" + ",".join(graders), time="2m")
        first_endpoints.wait_until_held()
        tasks = [f"{array}_0", f"{array}_1"]
        for stopping in (job, links[0], *tasks):
            self.cluster.wait_for(lambda: self.cluster.is_off(stopping), f"job {stopping} stops before its limit", 110)
        self.assertEqual(self.cluster.job(links[0])["ExitCode"], "3:0")
        self.struck(alone, chained, first, second)
        for endpoints in (alone_endpoints, chained_endpoints, first_endpoints, second_endpoints):
            endpoints.release()
        for run, ending in zip((alone, chained, first, second), (job, links[1], *tasks)):
            self.assertEqual(self.cluster.wait_for_end(ending), "COMPLETED", self.slurm_log(run))
            self.assert_done_as_undisturbed(run)
        self.assertEqual([self.cluster.job(ending)["Restarts"] for ending in (job, *tasks)], ["1"] * 3)
        for run in (alone, chained, swept):
            self.assert_nothing_left(run)


class Doctor(SlurmCase):
    def examine(self, *options):
        """What `rollcall doctor` finds in a job of two nodes: the job's state and exit code, and the findings."""
        run = self.three_ranks("examined")
        site, said = self.folder / "site.yaml", self.folder / "said"
        site.write_text(json.dumps({**SITE, "partition": "main"}))
        command = f"{ROLLCALL} doctor --json {run.file} --site {site}"
        job = cluster.run("sbatch", "--parsable", "--nodes=2", "--ntasks=3", "--time=5", f"--chdir={self.folder}", f"--output={said}",
                          *options, f"--wrap={command}").strip()
        state = self.cluster.wait_for_end(job)
        text = said.read_text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return job, state, {line["what"]: line for line in lines}, text

    def test_it_finds_a_sound_job_sound(self):
        job, state, found, text = self.examine("--requeue")
        self.assertEqual(state, "COMPLETED", text)
        self.assertEqual([line for line in text.splitlines() if not line.startswith("{")], [])
        self.assertRegex(found["Slurm"]["detail"], r"slurm\S* \d+\.\d+")
        self.assertRegex(found["Slurm job"]["detail"], rf"{job}, [45] minutes left")
        self.assertEqual(found["requeue"]["detail"], "this job may go back into the queue")
        self.assertRegex(found["MPI"]["detail"], r"2 ranks on n\d and n\d.*transports .*tcp")
        self.assertRegex(found["endpoint"]["detail"], r"from n\d: connected")
        self.assertEqual({what: line for what, line in found.items() if line["state"] == "failed"}, {})
        self.assertNotIn("compute node", found)

    def test_it_says_that_a_job_cannot_go_back_and_that_an_endpoint_cannot_be_reached(self):
        self.endpoints.go_down()
        _, state, found, text = self.examine("--no-requeue")
        self.assertEqual(state, "FAILED", text)
        self.assertEqual((found["requeue"]["state"], found["endpoint"]["state"]), ("warning", "failed"))
        self.assertIn("--chain", found["requeue"]["remedy"])
        self.assertRegex(found["endpoint"]["detail"], r"from n\d: ")


if __name__ == "__main__":
    cluster.enter()
    unittest.main()
