#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long a run needs to notice a fault, and to go on: rows for docs/reliability.md.

    ROLLCALL=build/app/rollcall/rollcall python3 benchmarks/recovery.py [--runs 5] [--only TEXT]

Each run is the small ledger run of the end-to-end tests; its end is held to the bits of an undisturbed one. Seconds are medians
(smallest - largest): until the fault was noticed and its work given to others, or until every process was gone; and, where a
new start was needed, from that start to the first step it finished.
"""

import argparse
import os
import pathlib
import re
import signal
import statistics
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))

import processes  # noqa: E402
from case import Case  # noqa: E402

STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3})")


def stamped(text, words):
    """The time of the first log line with these words, in seconds."""
    for line in text.splitlines():
        match = STAMP.match(line)
        if match and words in line:
            whole, _, fraction = match[1].partition(".")
            return time.mktime(time.strptime(whole, "%Y-%m-%d %H:%M:%S")) + float("0." + fraction)
    raise AssertionError(f"no line says {words!r}:\n{text}")


class Recovery(Case):
    runs = 5
    only = ""

    def case_run(self, name, faults, learners=1):
        run = self.make_run(name, checkpoint={"every": 1}, cluster={
            "learners": learners, "workers": 2, "worker_timeout": "3s", "heartbeat_every": "500ms"})
        run.variables = {"ROLLCALL_FAULTS": faults} if faults else {}
        return run

    def assert_same(self, run, learners=1):
        self.assertEqual(run.digests(3)["model.safetensors"], self.undisturbed_digests(3, learners)["model.safetensors"])

    def goes_on(self, name, faults, rank):
        """Seconds until the lead learner gave the lost worker's work to others."""
        run = self.case_run(name, faults)
        code, errors = run.train(seconds=120)
        self.assertEqual(code, 0, errors)
        self.assert_same(run)
        return stamped(run.log(0), f"lost worker {rank}") - stamped(run.log(rank), "injected fault"), None

    def goes_on_later(self, name, faults, learners=1, strike=None):
        """Seconds until all was gone, and until a new start had made a step."""
        run = self.case_run(name, faults, learners)
        process = run.start()
        if strike:
            self.wait_for(lambda: run.dir.exists() and (run.dir / "metrics.jsonl").exists() and run.metrics(), "a step", 60)
            struck = time.time()
            strike(run, process)
        run.finish(process, seconds=120)
        self.wait_for(lambda: not processes.of_run(run.file), "all processes are gone", 60)
        gone = time.time()
        if not strike:
            struck = max(stamped(run.log(rank), "injected fault") for rank in range(learners + 2) if "injected" in run.log(rank))
        return gone - struck, self.start_again(run, learners)

    def start_again(self, run, learners=1):
        """Seconds until the new start has made a step."""
        run.variables = {}
        steps = len(run.metrics()) if (run.dir / "metrics.jsonl").exists() else 0
        again = run.start()
        started = time.time()
        self.wait_for(lambda: again.poll() is not None or len(run.metrics()) > min(steps, 2), "a step", 60)
        on_again = time.time() - started
        code, errors = run.finish(again, seconds=120)
        self.assertEqual(code, 0, errors)
        self.assert_same(run, learners)
        return on_again

    def cut_short(self, name):
        """Seconds until a start with half a journal has ended, and until one with the whole had made a step."""
        run = self.case_run(name, "0:update:2:kill")
        run.train(seconds=120)
        whole = run.journal().read_bytes()
        run.journal().write_bytes(whole[:len(whole) // 2])
        run.variables = {}
        begin = time.time()
        code, errors = run.train(seconds=120)
        self.assertEqual(code, 3, errors)
        ended = time.time() - begin
        run.journal().write_bytes(whole)
        return ended, self.start_again(run)

    def row(self, title, measure):
        if self.only and self.only not in title:
            return
        self.cases = getattr(self, "cases", 0) + 1
        results = [measure(f"case{self.cases}run{i}") for i in range(self.runs)]

        def spread(values):
            if None in values:
                return ""
            return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"

        print(f"| {title} | {self.runs} | {spread([r[0] for r in results])} | {spread([r[1] for r in results])} |", flush=True)

    def test_all(self):
        print("| fault | runs | seconds until noticed, or until all is gone | seconds from a new start to its first step |")
        print("|---|---|---|---|")
        self.row("a worker is killed in the middle of a rollout", lambda n: self.goes_on(n, "1:turn:40:kill", 1))
        self.row("a worker is killed as it delivers", lambda n: self.goes_on(n, "1:delivery:9:kill", 1))
        self.row("a worker is killed as it loads new weights", lambda n: self.goes_on(n, "1:weights:2:kill", 1))
        self.row("a worker stands still for 20 s, `worker_timeout` 3 s", lambda n: self.goes_on(n, "1:turn:40:hang:20000", 1))
        self.row("a message of a worker is damaged", lambda n: self.goes_on(n, "1:message:12:corrupt", 1))
        self.row("the lead learner is killed in an update", lambda n: self.goes_on_later(n, "0:update:2:kill"))
        self.row("another learner is killed in an update", lambda n: self.goes_on_later(n, "1:update:2:kill", learners=2))
        self.row("the lead learner is killed inside a checkpoint", lambda n: self.goes_on_later(n, "0:checkpoint:2:kill"))
        self.row("a file cannot be written", lambda n: self.goes_on_later(n, "0:write:20:fail"))
        self.row("the journal cannot be written", lambda n: self.goes_on_later(n, "0:journal:3:fail"))
        self.row("no worker is left", lambda n: self.goes_on_later(n, "1:turn:40:kill,2:turn:40:kill"))
        self.row("the journal is cut short at a start", self.cut_short)
        kill_mpirun = lambda run, process: os.kill(processes.mpirun(run.file), signal.SIGKILL)  # noqa: E731
        self.row("mpirun is killed", lambda n: self.goes_on_later(n, "", strike=kill_mpirun))
        self.row("the parent is killed", lambda n: self.goes_on_later(n, "", strike=lambda run, process: process.kill()))
        self.row("SIGTERM", lambda n: self.goes_on_later(n, "", strike=lambda run, process: process.terminate()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose title holds this text")
    Recovery.runs, Recovery.only = parser.parse_args().runs, parser.parse_args().only
    unittest.main(argv=sys.argv[:1])
