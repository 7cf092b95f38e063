# SPDX-License-Identifier: Apache-2.0
"""The base of the end-to-end tests: a temporary folder with a small dataset, endpoints, and runs of the real binary."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import processes
from endpoints import Endpoints
from places import LEDGER, ROLLCALL

TOOLS = ("find_customer", "list_invoices", "pay_invoice", "send_receipt")
NOT_OURS = ("OMPI_", "PMIX_", "PMI_", "SLURM_", "ROLLCALL_")


def environment():
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    return {**kept, "OMP_NUM_THREADS": "1"}


def make_data(folder, train=16, valid=4):
    counts = {"train": train, "valid": valid, "drills": 1, "demos": 1}
    sizes = [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    subprocess.run([sys.executable, LEDGER / "make_data.py", "--out", folder, *sizes], check=True, timeout=60)


def merge(base, changes):
    """Nested settings with some of them changed; None takes a key away."""
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = merge(merged[key], value)
        merged[key] = value
    return {key: value for key, value in merged.items() if value is not None}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Run:
    """One run of the binary: its run file, its folder and its processes."""

    def __init__(self, folder, settings):
        self.name = settings["run"]["name"]
        self.dir = pathlib.Path(settings["run"]["dir"]) / self.name
        self.file = folder / f"{self.name}.yaml"
        self.file.write_text(json.dumps(settings, indent=1))  # JSON is YAML too
        self.variables = {}  # of the environment, besides the usual ones
        self.files = set()  # of shared memory and of the launcher, seen in use now and then while a process is waited for

    def start(self, *arguments, command="train"):
        command = [ROLLCALL, command, str(self.file), *arguments]
        return subprocess.Popen(command, env=environment() | self.variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, process, seconds=60):
        """Waits for the process; the exit code and what it wrote to stderr."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                _, errors = process.communicate(timeout=0.2)
                return process.returncode, errors
            except subprocess.TimeoutExpired:
                self.note_files()
            if time.monotonic() > deadline:
                processes.kill_all(self.file)
                _, errors = process.communicate(timeout=20)
                raise AssertionError(f"{self.name} did not end within {seconds} s; stderr:\n{errors}")

    def train(self, *arguments, seconds=60):
        return self.finish(self.start(*arguments), seconds)

    def evaluate(self, seconds=60):
        """`rollcall eval`: its exit code, what it printed, what it wrote to stderr."""
        process = self.start(command="eval")
        output, errors = process.communicate(timeout=seconds)
        return process.returncode, output, errors

    def note_files(self):
        self.files |= {path for path in processes.shared_memory(self.file) if path.exists()}
        self.files |= processes.scratch_folders(self.file)

    def signal(self, number, *ranks):
        found = processes.ranks(self.file)
        for rank in ranks:
            os.kill(found[rank], number)

    def log(self, rank):
        return (self.dir / "log" / f"rank-{rank}.log").read_text()

    def kill(self, process):
        """kill -9 for every process of the run."""
        processes.kill_all(self.file)
        process.communicate(timeout=20)

    def result(self):
        return json.loads((self.dir / "result.json").read_text())

    def metrics(self):
        return [json.loads(line) for line in (self.dir / "metrics.jsonl").read_text().splitlines()]

    def journal(self):
        return self.dir / "journal" / "learner-0.h5"

    def checkpoints(self):
        return sorted(path.name for path in (self.dir / "checkpoints").glob("step-*"))

    def digests(self, step):
        """Checksums of what training made: every file of a step's checkpoint, and the exported weights."""
        files = sorted((self.dir / "checkpoints" / f"step-{step:06}").iterdir())
        return {path.name: sha256(path) for path in [*files, self.dir / "export" / "model.safetensors"]}


class Case(unittest.TestCase):
    _undisturbed = {}
    patience = "60s"  # that runs have with an endpoint

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="rollcall-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        make_data(self.folder / "data")
        self.endpoints = self.serve()

    def serve(self, raw_reply=None):
        endpoints = Endpoints(raw_reply)
        self.addCleanup(endpoints.stop)
        return endpoints

    def settings(self, name, **changes):
        call, grade = self.endpoints.url("/call"), self.endpoints.url("/grade")
        base = {
            "run": {"name": name, "dir": str(self.folder / "runs"), "seed": 1, "steps": 3},
            "model": {"path": str(LEDGER / "model")},
            "data": {"train": str(self.folder / "data" / "train.jsonl")},
            "tools": [{"name": tool, "url": call, "timeout": "60s", "max_retries": 1, "give_up_after": self.patience} for tool in TOOLS],
            "grader": {"url": grade, "timeout": "60s", "max_retries": 1, "give_up_after": self.patience},
            "rollout": {"max_turns": 6, "max_tool_calls": 6, "max_new_tokens": 32, "context": 768},
            "batch": {"prompts": 4, "group_size": 4},
            "algorithm": {"learning_rate": 1e-3, "warmup_steps": 2},
            "cluster": {"learners": 1, "workers": 1, "stop_grace": "1s"},
            "checkpoint": {"every": 0, "keep": 9},
        }
        return merge(base, changes)

    def make_run(self, name, **changes):
        run = Run(self.folder, self.settings(name, **changes))
        self.addCleanup(processes.kill_all, run.file)
        return run

    def trained(self, name, **changes):
        """A run that ended well."""
        run = self.make_run(name, **changes)
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.result()["status"], "done")
        return run

    def undisturbed_digests(self, steps=3, learners=1):
        """Checksums of a run of the usual settings, made once for all tests of a file."""
        if (steps, learners) not in Case._undisturbed:
            cluster = {"learners": learners, "workers": 2}
            run = self.trained(f"undisturbed{learners}", run={"steps": steps}, cluster=cluster)
            self.assert_learnt(run)
            Case._undisturbed[steps, learners] = run.digests(steps)
        return Case._undisturbed[steps, learners]

    def assert_learnt(self, run):
        """Guards the comparisons of checkpoints: there was something to learn in every step."""
        lines = [line for line in run.metrics() if "loss" in line]
        self.assertTrue(lines)
        for line in lines:
            self.assertGreater(line["groups_signal"], 0, line)
            self.assertGreater(line["grad_norm_l2"], 0, line)

    def assert_nothing_left(self, run):
        deadline = time.monotonic() + 5
        while processes.of_run(run.file) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.assertEqual(processes.of_run(run.file), [], "processes are left over")
        self.assertEqual([path for path in run.files if path.exists()], [], "files are left over")

    def wait_for(self, condition, what, seconds=20):
        deadline = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.05)

    @contextlib.contextmanager
    def running(self, run):
        process = run.start()
        try:
            yield process
        finally:
            run.kill(process)
