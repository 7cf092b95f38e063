# SPDX-License-Identifier: Apache-2.0
"""Stored rollouts are graded again by another grader, and passes that may be false are graded twice while the run goes on."""

import json
import os
import subprocess
import unittest

import journal_file
from case import Case, environment
from endpoints import coin
from places import ROLLCALL
from replay_test import replay, tree

STEPS, PER_STEP, VALID = 3, 16, 4


def strict(request):
    """The usual coin, and of what passes it only some."""
    again = dict(request, item=dict(request["item"], ledger_seed=request["item"]["ledger_seed"] + 1))
    score = coin(request)["score"] * coin(again)["score"]
    return {"score": score, "explanation": "looked twice" if score else "not good enough"}


class Regrade(Case):
    def regrade(self, run, *arguments, code=0, variables={}):
        done = subprocess.run([ROLLCALL, "regrade", run.dir, *arguments], env=environment() | variables, capture_output=True, text=True, timeout=90)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def evaluated(self, name, **changes):
        valid = str(self.folder / "data" / "valid.jsonl")
        return self.trained(name, data={"valid": valid}, **changes)

    def test_the_same_grader_changes_nothing_and_a_stricter_one_is_told(self):
        run = self.evaluated("graded", cluster={"workers": 2})
        before, bodies = tree(run.dir), self.endpoints.requests["/grade"]
        told = json.loads(self.regrade(run, "--json", "--name", "same").stdout)
        rollouts = STEPS * PER_STEP + 2 * VALID
        self.assertEqual(self.endpoints.requests["/grade"] - bodies, rollouts)
        self.assertEqual((told["graded_again"], told["counts"]["same"]), (rollouts, rollouts))
        self.assertEqual((told["most_changed"], told["ungraded"]), ([], []))
        self.assertEqual(told["gain"]["before"], told["gain"]["after"])
        self.assertEqual(json.loads((run.dir / "regrade-same.json").read_text()), told)

        self.endpoints.grade = strict
        shown = self.regrade(run, "--name", "strict").stdout
        told = json.loads((run.dir / "regrade-strict.json").read_text())
        self.assertEqual(set(tree(run.dir)) - set(before), {str(run.dir / f"regrade-{name}.json") for name in ("same", "strict")})
        self.assertEqual({name: digest for name, digest in tree(run.dir).items() if name in before}, before)
        self.check_changes(run, told)
        self.assertIn(f"pass_to_fail   {told['counts']['pass_to_fail']}", shown)
        self.assertIn("does not give the same grades again", shown)
        self.assertIn("not good enough", shown)
        self.assertEqual(replay(run.dir, STEPS - 1).returncode, 0, "the journal is as it was")

    def test_canaries_are_graded_again_as_what_they_are(self):
        data = self.folder / "data"
        rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()[:6]]
        (data / "canaries.jsonl").write_text("".join(json.dumps(row | {"trap": True}) + "\n" for row in rows))
        traps = []

        def grade(request):
            traps.append(bool(request["item"].get("trap")))
            return coin(request)

        self.endpoints.grade = grade
        files = {split: str(data / f"{split}.jsonl") for split in ("valid", "canaries")}
        run = self.trained("trapped", data=files)
        before = traps.count(True)
        told = json.loads(self.regrade(run, "--json", "--name", "same").stdout)
        rollouts = STEPS * PER_STEP + 2 * (VALID + 6)
        self.assertEqual((told["graded_again"], told["counts"]["same"]), (rollouts, rollouts))
        self.assertEqual((before, traps.count(True)), (12, 24))

    def check_changes(self, run, told):
        rows = journal_file.check_rows(run.journal(), self)
        self.assertGreater(told["counts"]["pass_to_fail"], 0)
        self.assertEqual(told["counts"]["fail_to_pass"] + told["counts"]["score_changed"], 0)
        train = rows[rows["split"] == journal_file.TRAIN]
        for step in told["steps"]:
            of_step = train[train["step"] == step["step"]]
            self.assertAlmostEqual(step["pass_before"], of_step["passed"].mean())
            self.assertLessEqual(step["pass_after"], step["pass_before"])
        self.assertGreater(sum(step["advantage_signs_changed"] for step in told["steps"]), 0)
        for change in told["most_changed"]:
            row = rows[change["row"]]
            self.assertEqual((change["before"]["score"], change["after"]["score"]), (row["score"], 0))
            self.assertEqual((change["trace_id"], change["task_row"]), (row["trace_id"].decode(), row["task_row"]))

    def test_a_part_of_the_run_is_graded_by_another_run_files_grader(self):
        run = self.evaluated("part")
        other = self.serve()
        seen = []
        other.grade = lambda request: seen.append(request) or strict(request)
        config = self.folder / "other.yaml"
        settings = self.settings("other", grader={"url": other.url("/grade"), "headers": {"authorization": "Bearer ${REGRADE_KEY}"}})
        config.write_text(json.dumps(settings))
        arguments = ("--config", config, "--step", "1..2", "--split", "train", "--only-passed", "--json")
        self.assertIn("REGRADE_KEY", self.regrade(run, *arguments, code=2).stderr)
        told = json.loads(self.regrade(run, *arguments, variables={"REGRADE_KEY": "key-of-the-test"}).stdout)
        rows = journal_file.check_rows(run.journal(), self)
        wanted = rows[(rows["split"] == journal_file.TRAIN) & (rows["step"] >= 1) & (rows["passed"] == 1)]
        self.assertEqual(told["graded_again"], len(wanted))
        self.assertEqual({request["trace_id"] for request in seen}, {row["trace_id"].decode() for row in wanted})
        self.assertEqual([step["step"] for step in told["steps"]], [1, 2])
        told = json.loads(self.regrade(run, "--set", f"grader.url={other.url('/grade')}", "--sample", "5", "--json").stdout)
        self.assertEqual(told["graded_again"], 5)

    def test_what_cannot_be_graded(self):
        run = self.evaluated("odd", run={"steps": 1})
        self.assertIn("only keys of grader", self.regrade(run, "--set", "run.seed=3", code=2).stderr)
        self.assertIn("no step", self.regrade(run, "--step", "x", code=2).stderr)
        down = self.serve()
        down.go_down()
        self.assertIn("grader", self.regrade(run, "--set", f"grader.url={down.url('/grade')}", code=5).stderr)
        broken = self.serve(raw_reply=(200, b'{"error": {"message": "no such task", "retryable": false}}'))
        told = json.loads(self.regrade(run, "--set", f"grader.url={broken.url('/grade')}", "--json", "--split", "valid").stdout)
        self.assertEqual(told["counts"]["ungraded"], 2 * VALID)
        self.assertIn("no such task", told["ungraded"][0]["why"])
        train = self.folder / "data" / "train.jsonl"
        train.write_text("".join(reversed(train.read_text().splitlines(keepends=True))))
        self.assertIn("data.train", self.regrade(run, code=2).stderr)


class Confirm(Case):
    def test_a_pass_that_fails_the_second_time_is_left_out_of_the_update(self):
        self.endpoints.grade = lambda request: {"score": 1} if coin(request)["score"] else {"score": 0}
        liar = self.serve()
        liar.grade = strict
        second = {"confirm": "always", "second": {"url": liar.url("/grade"), "give_up_after": "60s"}}
        run = self.trained("confirmed", grader=second, cluster={"workers": 2})
        rows = journal_file.check_rows(run.journal(), self)
        masked = rows[rows["fault"] == journal_file.MASKED]
        self.assertGreater(len(masked), 0)
        self.assertTrue((masked["score"] == 1).all())
        used = {int(use["row"]): use for use in journal_file.uses(run.journal())}
        for row in (i for i, one in enumerate(rows) if one["fault"] == journal_file.MASKED):
            self.assertFalse(used[row]["in_loss"])
        for line in run.metrics():
            of_step = rows[rows["step"] == line["step"] - 1]
            self.assertEqual(line["unconfirmed"], (of_step["fault"] == journal_file.MASKED).sum())
            self.assertEqual(line["confirmed"], of_step["passed"][of_step["fault"] == journal_file.NO_FAULT].sum())
            self.assertEqual(line["confirm_faults"], 0)
        self.assertEqual(liar.requests["/grade"], sum(line["confirmed"] + line["unconfirmed"] for line in run.metrics()))
        self.assertEqual(replay(run.dir, STEPS - 1).returncode, 0)
        again = subprocess.run([ROLLCALL, "regrade", run.dir, "--json"], env=environment(), capture_output=True, text=True, timeout=60)
        self.assertEqual(json.loads(again.stdout)["counts"]["same"], len(rows), again.stdout)
        self.assertIn("unconfirmed", (run.dir / "audit.html").read_text())

    def test_rare_successes_of_large_groups_are_graded_twice_whoever_samples_and_after_a_kill(self):
        def rare(request):
            again = [dict(request, item=dict(request["item"], ledger_seed=request["item"]["ledger_seed"] + i)) for i in range(4)]
            return {"score": int(all(coin(one)["score"] for one in again))}

        self.endpoints.grade = rare
        settings = {"batch": {"prompts": 4, "group_size": 8}, "checkpoint": {"every": 1}}
        one, two = self.make_run("one", **settings), self.make_run("two", cluster={"workers": 2}, **settings)
        code, errors = one.train()
        self.assertEqual(code, 0, errors)
        self.endpoints.hold_from(32 + 12)
        with self.running(two):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        code, errors = two.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(one.digests(STEPS)["model.safetensors"], two.digests(STEPS)["model.safetensors"])
        counted = [[(line["confirmed"], line["unconfirmed"]) for line in run.metrics()] for run in (one, two)]
        self.assertEqual(*counted)
        first = one.metrics()[0]
        self.assertEqual(counted[0][0], (first["pass_rate"] * first["rollouts"], 0), "nothing is known of the first step's tasks")
        self.assertGreater(sum(confirmed for confirmed, _ in counted[0]), 0)


if __name__ == "__main__":
    unittest.main()
