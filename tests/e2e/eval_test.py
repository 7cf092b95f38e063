# SPDX-License-Identifier: Apache-2.0
"""`rollcall eval`: pass@k and best of n, a baseline on the same draws, and what it refuses."""

import json
import unittest

import journal_file
from case import Case, merge
from places import LEDGER


class Eval(Case):
    def settings(self, name, **changes):
        held_out = {"run": {"steps": 1}, "data": {"valid": str(self.folder / "data" / "valid.jsonl")}, "eval": {"samples": 4}}
        return merge(super().settings(name, **held_out), changes)

    def evaluate(self, run, *arguments, code=0):
        process = run.start(*arguments, command="eval")
        output, errors = process.communicate(timeout=90)
        self.assertEqual(process.returncode, code, errors)
        return (json.loads(output) if code == 0 else None), errors

    def test_the_curve_is_the_journals(self):
        run = self.make_run("curve")
        result, errors = self.evaluate(run)
        self.assertEqual([point["k"] for point in result["pass_at_k"]], [1, 2, 4])
        self.assertAlmostEqual(result["pass_at_k"][0]["pass"]["mean"], result["pass_at_1"])
        passed = {}
        with journal_file.open_journal(run.dir / "eval" / "journal.h5") as file:
            for row in file["rows"][:]:
                passed.setdefault(int(row["task_row"]), []).append(float(row["score"]))
        self.assertEqual({len(scores) for scores in passed.values()}, {4})
        self.assertAlmostEqual(result["pass_at_k"][2]["pass"]["mean"], sum(max(s) for s in passed.values()) / len(passed))
        self.assertAlmostEqual(result["avg_at_n"]["mean"], sum(sum(s) / 4 for s in passed.values()) / len(passed))
        for point in result["pass_at_k"]:
            for kind in ("pass", "best"):
                self.assertLessEqual(point[kind]["low_95"], point[kind]["mean"])
                self.assertGreaterEqual(point[kind]["high_95"], point[kind]["mean"])
        self.assertIn("best score of k", errors)
        again, _ = self.evaluate(run)
        self.assertEqual(result, again)

    def test_a_policy_is_its_own_equal(self):
        run = self.make_run("equal")
        result, errors = self.evaluate(run, "--baseline", str(LEDGER / "model"))
        self.assertEqual({key: result["comparison"][key] for key in ("tasks", "won", "lost", "tied", "sign_test_p")},
                         {"tasks": 4, "won": 0, "lost": 0, "tied": 4, "sign_test_p": 1.0})
        self.assertEqual(result["comparison"]["pass_at_1_difference"], {"mean": 0.0, "low_95": 0.0, "high_95": 0.0})
        self.assertEqual(result["baseline"]["pass_at_k"], result["pass_at_k"])
        self.assertIn("4 tied", errors)

    def test_a_run_its_checkpoint_and_its_export_are_one_policy(self):
        run = self.trained("trained", checkpoint={"every": 1}, data={"valid": None})
        lines = []
        for name, given in (("whole", run.dir), ("export", run.dir / "export"), ("point", run.dir / "checkpoints" / "step-000001")):
            other = self.make_run(name)
            result, _ = self.evaluate(other, str(given), "--baseline", str(LEDGER / "model"))
            self.assertEqual(result.pop("model"), str(given))
            lines.append(result)
        self.assertEqual(lines[0], lines[1])
        self.assertEqual(lines[0], lines[2])
        self.assertEqual(lines[0]["differences"], [])

    def test_another_world_than_the_trainings_is_refused(self):
        run = self.trained("trained", data={"valid": None})
        other = self.make_run("other", rollout={"max_turns": 2}, model={"chat": {"enable_thinking": False}})
        _, errors = self.evaluate(other, str(run.dir), code=2)
        self.assertIn("rollout.max_turns is 2, it was 6", errors)
        self.assertIn("model.chat.enable_thinking is false, it was true", errors)
        result, errors = self.evaluate(other, str(run.dir), "--allow-differences")
        self.assertEqual(len(result["differences"]), 2)
        self.assertIn("unlike the training: rollout.max_turns", errors)

    def test_a_training_file_that_is_gone_is_told(self):
        train = self.folder / "forgotten.jsonl"
        train.write_text((self.folder / "data" / "train.jsonl").read_text())
        run = self.trained("forgetful", data={"train": str(train), "valid": None})
        train.unlink()
        _, errors = self.evaluate(self.make_run("later"), str(run.dir))
        self.assertIn(f"{train}, from which", errors)

    def test_training_rows_are_no_held_out_rows(self):
        run = self.make_run("leak")
        train, valid = self.folder / "data" / "train.jsonl", self.folder / "data" / "valid.jsonl"
        row = json.loads(train.read_text().splitlines()[2])
        turned = json.dumps(dict(reversed(row.items())), indent=None)
        valid.write_text(valid.read_text() + turned + "\n")
        _, errors = self.evaluate(run, code=2)
        self.assertIn("1 rows of data.valid are training rows", errors)
        self.assertIn(f"{valid}:5 is {train}:3", errors)
        result, _ = self.evaluate(run, "--allow-training-rows")
        self.assertEqual((result["training_rows"], result["tasks"]), (1, 5))

    def test_what_is_no_policy_is_refused(self):
        run = self.make_run("nothing")
        empty = self.folder / "empty"
        empty.mkdir()
        for path in (empty, self.folder / "absent"):
            _, errors = self.evaluate(run, str(path), code=2)
            self.assertIn("no model directory, no run and no checkpoint", errors)
        _, errors = self.evaluate(run, "--baseline", str(empty), code=2)
        self.assertIn("no model directory", errors)
        self.assertFalse((run.dir / "eval").exists())

    def test_training_tells_later_places_of_the_curve(self):
        run = self.trained("tells")
        line = next(line for line in run.metrics() if "eval_pass_at_1" in line)
        self.assertLessEqual(line["eval_pass_at_1"], line["eval_pass_at_2"])
        self.assertLessEqual(line["eval_pass_at_2"], line["eval_pass_at_4"])


if __name__ == "__main__":
    unittest.main()
