# SPDX-License-Identifier: Apache-2.0
"""What a run reports follows from its journal, which a reader may open at any time."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
import unittest
import urllib.request

import journal_file
import numpy
import processes
from case import Case, environment, make_data
from endpoints import coin
from places import LEDGER, ROLLCALL


def percentile(values, share):
    """Nearest rank."""
    return sorted(values)[int(share * (len(values) - 1) + 0.5)]


def numbers_of(rows, sampled_tokens, tool_events):
    """What metrics.jsonl says of the rollouts of a step; the arguments are parallel."""
    graded = rows[rows["fault"] == journal_file.NO_FAULT]
    groups = set(rows["group"].tolist())
    rewards = [of_group for group in groups if len(of_group := graded["reward"][graded["group"] == group].tolist()) >= 2]
    calls = [len(events) for events in tool_events]
    of_outcome = {}
    for name, passed in (("passed", True), ("failed", False)):
        chosen = (rows["fault"] == journal_file.NO_FAULT) & (rows["passed"].astype(bool) == passed)
        costs = {
            "turns": rows["turns"],
            "tokens": numpy.array(sampled_tokens),
            "tool_calls": numpy.array(calls),
            "rollout_seconds": rows["wall_time_s"],
        }
        for cost, values in costs.items() if chosen.any() else ():
            of_outcome[f"{cost}_p50.{name}"] = percentile(values[chosen].tolist(), 0.5)
            of_outcome[f"{cost}_p95.{name}"] = percentile(values[chosen].tolist(), 0.95)
    passed_groups = set(graded["group"][graded["passed"].astype(bool)].tolist())
    return of_outcome | {
        "reward_mean": graded["reward"].mean(),
        "pass_rate": graded["passed"].mean(),
        "rollouts": len(rows),
        "faults": int((~numpy.isin(rows["fault"], [journal_file.NO_FAULT, journal_file.MASKED])).sum()),
        "masked": int((rows["fault"] == journal_file.MASKED).sum()),
        "groups": len(groups),
        "groups_dropped": len(groups) - len(rewards),
        "groups_signal": sum(len(set(of_group)) > 1 for of_group in rewards),
        "groups_all_zero": sum(set(of_group) == {0} for of_group in rewards),
        "groups_all_one": sum(set(of_group) == {1} for of_group in rewards),
        "groups_passed": sum((graded["group"] == group).sum() >= 2 for group in passed_groups),
        "tokens_sampled": sum(sampled_tokens),
        "tool_calls_p50": percentile(calls, 0.5),
        "tool_calls_p95": percentile(calls, 0.95),
        "tool_errors": sum(int(events["is_error"].sum()) for events in tool_events),
        "rollout_seconds_p50": percentile(rows["wall_time_s"].tolist(), 0.5),
        "rollout_seconds_p95": percentile(rows["wall_time_s"].tolist(), 0.95),
    }


def numbers_of_steps(path):
    """step -> its numbers, from the rows that its update used."""
    with journal_file.open_journal(path) as file:
        rows, uses = file["rows"][:], file["uses"][:]
        sampled = [int(file["is_action"][b:e].sum()) for b, e in zip(file["offsets"][:-1], file["offsets"][1:])]
        bounds = file["tool_event_offsets"][:]
        events = [file["tool_events"][b:e] for b, e in zip(bounds[:-1], bounds[1:])]
    steps = {}
    for step in sorted(set(uses["step"].tolist())):
        used = uses["row"][uses["step"] == step].tolist()
        steps[step + 1] = numbers_of(rows[used], [sampled[row] for row in used], [events[row] for row in used])
    return steps


def held_out_pass_rate(path, step):
    """The mean over tasks of the share of passed rollouts."""
    with journal_file.open_journal(path) as file:
        rows = file["rows"][:]
    rows = rows[(rows["split"] == journal_file.VALID) & (rows["step"] == step) & (rows["fault"] == journal_file.NO_FAULT)]
    tasks = [rows["passed"][rows["task_row"] == task] for task in sorted(set(rows["task_row"].tolist()))]
    return sum(passed.mean() for passed in tasks) / len(tasks)


def grade_with_gates_and_flags(request):
    """The usual coin, and every now and then a gate or a flag against it."""
    digest = hashlib.sha256(json.dumps(request["sample"]["trajectory"]).encode()).digest()
    extras = ({}, {"gates": {"open": True}}, {"gates": {"open": False}}, {"flags": ["hacking"]}, {"flags": ["odd"]}, {"mask_sample": True})
    return coin(request) | extras[digest[1] % len(extras)]


def passes(path):
    """What `passed` should be of each graded row, from the rest of the journal: threshold 1, flag `hacking` is zero."""
    with journal_file.open_journal(path) as file:
        rows, bounds, texts = file["rows"][:], file["text_offsets"][:], bytes(file["texts"][:])
    gates_flags = [[json.loads(texts[bounds[row * 6 + k] : bounds[row * 6 + k + 1]]) for k in (4, 5)] for row in range(len(rows))]
    return {
        row: record["score"] >= 1 and all(is_open for _, is_open in gates) and "hacking" not in flags
        for row, (record, (gates, flags)) in enumerate(zip(rows, gates_flags))
        if record["fault"] == journal_file.NO_FAULT
    }, rows["passed"]


class JournalNumbers(Case):
    def test_metrics_can_be_computed_from_the_journal(self):
        valid = str(self.folder / "data" / "valid.jsonl")
        self.endpoints.grade = grade_with_gates_and_flags
        run = self.trained("numbers", cluster={"workers": 2}, data={"valid": valid}, eval={"samples": 3})
        self.assert_learnt(run)
        journal_file.check_rows(run.journal(), self)
        expected, passed = passes(run.journal())
        self.assertEqual({row: bool(passed[row]) for row in expected}, expected)
        self.assertLess(sum(expected.values()), sum(line.get("rollouts", 0) for line in run.metrics()))
        steps = numbers_of_steps(run.journal())
        self.assertEqual(sorted(steps), [1, 2, 3])
        for line in run.metrics():
            if "eval_pass_at_1" in line:
                self.assertAlmostEqual(line["eval_pass_at_1"], held_out_pass_rate(run.journal(), line["step"]), places=12)
                continue
            for name, value in steps[line["step"]].items():
                self.assertAlmostEqual(line[name], value, places=12, msg=name)
        evaluations = run.result()["eval"]
        for when, step in (("before", 0), ("after", 3)):
            self.assertAlmostEqual(evaluations[when]["pass_at_1"], held_out_pass_rate(run.journal(), step), places=12)

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
        self.train_two_steps("run.yaml")

    def test_trains_for_two_steps_with_a_critic(self):
        lines = self.train_two_steps("ppo.yaml", {"algorithm.critic.pretrain_steps": 1})
        self.assertEqual(["value_loss" in line for line in lines if "loss" in line], [True, True])

    def train_two_steps(self, name, changes_of_its_own={}):
        address = self.serve_example()
        make_data(self.folder / "example", train=16, valid=6)
        run_file = self.folder / "example.yaml"
        shutil.copy(LEDGER / name, run_file)
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
            **changes_of_its_own,
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
        return lines


if __name__ == "__main__":
    unittest.main()
