# SPDX-License-Identifier: Apache-2.0
"""What a run reports follows from its journal, which a reader may open at any time."""

import json
import shutil
import subprocess
import sys
import time
import unittest
import urllib.request

import journal_file
import processes
from case import Case, environment, make_data
from places import LEDGER, ROLLCALL


def numbers_of_steps(path):
    """step -> mean reward and pass rate, from the rows that its update used."""
    with journal_file.open_journal(path) as file:
        rows, uses = file["rows"][:], file["uses"][:]
    steps = {}
    for step in sorted(set(uses["step"].tolist())):
        used = rows[uses["row"][uses["step"] == step]]
        graded = used[used["fault"] == journal_file.NO_FAULT]
        steps[step + 1] = graded["reward"].mean(), (graded["score"] >= 1).mean()
    return steps


class JournalNumbers(Case):
    def test_metrics_can_be_computed_from_the_journal(self):
        run = self.trained("numbers", cluster={"workers": 2})
        self.assert_learnt(run)
        journal_file.check_rows(run.journal(), self)
        steps = numbers_of_steps(run.journal())
        self.assertEqual(sorted(steps), [1, 2, 3])
        for line in run.metrics():
            reward_mean, pass_rate = steps[line["step"]]
            self.assertAlmostEqual(line["reward_mean"], reward_mean, places=12)
            self.assertAlmostEqual(line["pass_rate"], pass_rate, places=12)

    def test_h5py_reads_along_while_the_run_writes(self):
        run = self.make_run("watched")
        self.endpoints.hold_from(16 + 1)
        process = run.start()
        self.endpoints.wait_until_held()
        with journal_file.open_journal(run.journal()) as file:
            self.assertEqual(len(journal_file.check_rows(run.journal(), self)), 16)
            self.endpoints.release()
            rows, deadline = file["rows"], time.monotonic() + 30
            while len(rows) < 48 and time.monotonic() < deadline:
                time.sleep(0.05)
                rows.refresh()
            self.assertEqual(len(rows), 48)
            self.assertEqual(set(rows["split"].tolist()), {journal_file.TRAIN})
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)


class LedgerExample(Case):
    """The example as its users run it: its own server, data and run file."""

    def serve_example(self):
        port_file = self.folder / "port"
        command = [sys.executable, LEDGER / "server.py", "--port", "0", "--port-file", port_file]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.addCleanup(server.wait, 20)
        self.addCleanup(server.terminate)
        deadline = time.monotonic() + 20
        while not port_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{int(port_file.read_text())}"
        with urllib.request.urlopen(f"{address}/health", timeout=5) as reply:
            self.assertEqual(json.load(reply), {"status": "ok"})
        return address

    def test_trains_for_two_steps(self):
        address = self.serve_example()
        make_data(self.folder / "example", train=16, valid=6)
        run_file = self.folder / "example.yaml"
        shutil.copy(LEDGER / "run.yaml", run_file)
        self.addCleanup(processes.kill_all, run_file)
        changes = {
            "model.path": LEDGER / "model",
            "run.dir": self.folder / "runs",
            "run.name": "example",
            "run.steps": 2,
            "data.train": self.folder / "example" / "train.jsonl",
            "data.valid": self.folder / "example" / "valid.jsonl",
            "grader.url": f"{address}/grade",
            **{f"tools.{i}.url": f"{address}/call" for i in range(4)},
            "batch.prompts": 4,
            "batch.group_size": 4,
            "eval.tasks": 4,
        }
        arguments = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
        command = [ROLLCALL, "train", run_file, *arguments]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        run_dir = self.folder / "runs" / "example"
        result = json.loads((run_dir / "result.json").read_text())
        self.assertEqual(result["status"], "done")
        self.assertEqual(result["eval"]["before"]["tasks"], 4)
        self.assertTrue((run_dir / "export" / "model.safetensors").exists())
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        self.assertEqual([line["faults"] for line in lines if "faults" in line], [0, 0])
        self.assertIn("<html", (run_dir / "report.html").read_text())


if __name__ == "__main__":
    unittest.main()
