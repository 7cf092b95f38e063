# SPDX-License-Identifier: Apache-2.0
"""Runs under random faults: whatever is killed, hung, refused or damaged, a run ends in order or goes on, and in the end it
has learnt the same bits as an undisturbed one.

ROLLCALL_CHAOS is the number of schedules, ROLLCALL_CHAOS_SEED that of the first (each follows from its seed alone). A schedule
that fails is made again by `ROLLCALL_CHAOS=1 ROLLCALL_CHAOS_SEED=<its seed>`.
"""

import os
import random
import shutil
import signal
import subprocess
import time
import unittest

import journal_file
import processes
from case import Case

SCHEDULES = int(os.environ.get("ROLLCALL_CHAOS", "8"))
FIRST_SEED = int(os.environ.get("ROLLCALL_CHAOS_SEED", "1"))
STEPS, PER_STEP = 3, 16

WORKER_PLACES = {"rollout": 24, "turn": 60, "graded": 24, "delivery": 24, "weights": 3, "message": 40}  # and how often about
LEAD_PLACES = {"step": 3, "update": 3, "publish": 4, "checkpoint": 4, "write": 30, "message": 60}
FOLLOWER_PLACES = {"update": 3}
LONGEST_LIFE = 90  # seconds, on a busy machine


class Schedule:
    """The faults of a run's lives, one list a life; the life after them is left alone."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.learners = self.rng.choice([1, 1, 2])
        self.workers = self.rng.choice([2, 3])
        self.every = self.rng.choice([0, 1, 2])
        self.lives = [self.life() for _ in range(self.rng.choice([1, 1, 2, 3]))]

    def life(self):
        """Injected faults, and what comes from outside: a blow, when, and how long it lasts if it does; or nothing."""
        injected = [self.fault() for _ in range(self.rng.choice([0, 1, 1, 2]))]
        outside = None
        if not injected or self.rng.random() < 0.3:
            blow = self.rng.choice(["SIGTERM", "SIGUSR1", "mpirun", "parent", "all", "pause", "outage"])
            outside = (blow, self.rng.uniform(0.3, 4), self.rng.uniform(0.2, 5))
        return injected, outside

    def fault(self):
        rank = self.rng.randrange(self.learners + self.workers)
        places = LEAD_PLACES if rank == 0 else FOLLOWER_PLACES if rank < self.learners else WORKER_PLACES
        place = self.rng.choice(sorted(places))
        what = ["kill", f"hang:{self.rng.randrange(100, 5000)}"]
        if place == "write":
            what = ["kill", "fail"]
        if place == "message":
            what = ["kill", "corrupt", *what[1:]]  # hang: the message and those behind it are late
        if rank >= self.learners and self.rng.random() < 0.2:
            place, what = "connect", ["fail"]
            return f"{rank}:connect:{1 + self.rng.randrange(60)}:fail"
        if rank == 0 and self.rng.random() < 0.15:
            return f"0:journal:{1 + self.rng.randrange(6)}:fail"
        return f"{rank}:{place}:{1 + self.rng.randrange(places[place])}:{self.rng.choice(what)}"

    def __str__(self):
        return f"learners {self.learners}, workers {self.workers}, checkpoints every {self.every}, lives {self.lives}"


def last_worker(run):
    return max(processes.ranks(run.file).items(), default=(0, None))[1]


def pause(run, seconds):
    """SIGSTOP, and later SIGCONT, for a worker."""
    if worker := last_worker(run):
        try:
            os.kill(worker, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(worker, signal.SIGCONT)
        except ProcessLookupError:
            pass  # no more there


def strike(run, process, endpoints, target, seconds):
    """The blow from outside."""
    if process.poll() is not None:
        return
    if target == "pause":
        pause(run, seconds)
    elif target == "outage":
        endpoints.go_down()
        time.sleep(seconds)
        endpoints.come_up()
    elif target in ("SIGTERM", "SIGUSR1"):
        process.send_signal(getattr(signal, target))
    elif target == "parent":
        process.kill()
    elif target == "all":
        processes.kill_all(run.file)
    else:
        try:
            os.kill(processes.mpirun(run.file), signal.SIGKILL)
        except (StopIteration, ProcessLookupError):
            pass  # not yet there, or no more


class Chaos(Case):
    def live(self, run, injected, outside):
        """One life of the run; its exit code."""
        run.variables = {"ROLLCALL_FAULTS": ",".join(injected)} if injected else {}
        process = run.start()
        if outside:
            target, delay, seconds = outside
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                strike(run, process, self.endpoints, target, seconds)
        code, errors = run.finish(process, seconds=LONGEST_LIFE)
        self.assertNotIn("this is a bug", errors)
        if code < 0:  # the parent itself was killed: the others notice by themselves
            deadline = time.monotonic() + 30
            while processes.of_run(run.file) and time.monotonic() < deadline:
                time.sleep(0.1)
            for folder in run.files:  # a later run would remove it
                shutil.rmtree(folder, ignore_errors=True)
        unreachable = [5] if outside and outside[0] == "outage" else []  # at the start nobody waits for an endpoint
        self.assertIn(code, [0, 3, -signal.SIGKILL, *unreachable], errors)
        self.assert_nothing_left(run)
        if code in (0, 3) and run.dir.exists() and (run.dir / "result.json").exists():
            self.assertEqual(run.result()["exit_code"], code, errors)
        self.check_invariants(run)
        if code == 3:
            self.assertRegex(errors, "rollcall: |what to do: ")  # it says why
        return code

    def check_invariants(self, run):
        """What the journal can show of I1, I2, I3 and I5, after each life. (I4 and I6 are the comparison of the end.)"""
        if not run.journal().exists():
            return
        rows, uses = journal_file.check_rows(run.journal(), self), journal_file.uses(run.journal())
        made = [(int(row["step"]), int(row["group"]), int(row["member"])) for row in rows]
        for use in uses:
            self.assertLess(use["row"], len(rows), "an update rests on what is not committed")
            row = rows[int(use["row"])]
            self.assertEqual(use["step"], row["step"])
            if use["in_loss"]:
                self.assertEqual(row["fault"], journal_file.NO_FAULT, "a fault was trained on")
                self.assertEqual(use["reward"], row["reward"])
        used = [made[int(use["row"])] for use in uses]
        self.assertEqual(len(set(used)), len(used), "a rollout was used twice")
        for step in {int(use["step"]) for use in uses}:
            self.assertEqual(sum(int(use["step"]) == step for use in uses), PER_STEP, "a step used another number of rollouts")

    def run_schedule(self, seed):
        schedule = Schedule(seed)
        expected = self.undisturbed_digests(STEPS, schedule.learners)
        run = self.make_run(f"chaos{seed}", checkpoint={"every": schedule.every}, cluster={
            "learners": schedule.learners, "workers": schedule.workers, "worker_timeout": "3s", "heartbeat_every": "200ms"})
        with self.subTest(seed=seed, schedule=str(schedule)):
            for injected, outside in [*schedule.lives, ([], None)]:
                code = self.live(run, injected, outside)
                if code == 0:
                    break
            self.assertEqual(code, 0)
            self.assertEqual(run.result()["status"], "done")
            digests = run.digests(STEPS)
            self.assertEqual(digests["state.safetensors"], expected["state.safetensors"])
            self.assertEqual(digests["model.safetensors"], expected["model.safetensors"])

    def test_schedules(self):
        for seed in range(FIRST_SEED, FIRST_SEED + SCHEDULES):
            self.run_schedule(seed)


if __name__ == "__main__":
    unittest.main()
