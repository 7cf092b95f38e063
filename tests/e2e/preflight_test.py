# SPDX-License-Identifier: Apache-2.0
"""`rollcall preflight`: what it says of problems and graders of known kinds."""

import collections
import hashlib
import json
import signal
import socket
import unittest

from case import Case
from endpoints import coin

SMALL = ("--tasks", "8", "--samples", "8", "--max-rollouts", "128")


def worthless(request):
    """Whether there is no call in the sample: only the policy of the tests makes any."""
    return not request["sample"]["output_tools"]


class Preflight(Case):
    def preflight(self, run, *arguments, code=0):
        process = run.start(*(arguments or SMALL), command="preflight")
        output, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, code, output + errors)
        file = run.dir / "preflight.json"
        return (json.loads(file.read_text()) if file.exists() else None), output, errors

    def canaries(self, found):
        return {canary["name"]: canary for canary in found["canaries"]}

    def test_a_problem_that_can_be_learnt(self):
        self.endpoints.grade = lambda request: {"score": 0} if worthless(request) else coin(request)
        run = self.make_run("good", batch={"prompts": 8, "group_size": 8})
        found, output, _ = self.preflight(run)
        self.assertIn(found["verdict"], ("go", "go_with"), found["reasons"])
        self.assertIn("verdict: go", output)
        sampled = found["sampled"]
        self.assertEqual((sampled["tasks"], sampled["samples"], sampled["rollouts"], sampled["rounds"]), (8, 8, 64, 1))
        self.assertEqual([point["k"] for point in found["pass_at_k"]], [1, 2, 4, 8])
        self.assertAlmostEqual(found["pass_at_k"][0]["pass"]["mean"], sampled["passed"] / 64)
        self.assertEqual(sum(bin["tasks"] for bin in found["pass_rates"]["histogram"]), 8)
        shares = [group["share"]["mean"] for group in found["signal"]["groups"]]
        self.assertEqual(shares, sorted(shares))
        self.assertEqual([group["group_size"] for group in found["signal"]["groups"]], [4, 8, 16, 32, 64, 128, 256])
        plan = found["plan"]["as_planned"]
        self.assertEqual(plan["rollouts_of_run"], 3 * 64)
        self.assertGreater(plan["hours_of_run"], 0)
        for canary in self.canaries(found).values():
            self.assertEqual((canary["graded"], canary["faults"]), (8, 0))
        for name in ("empty", "constant", "prompt"):
            self.assertEqual(self.canaries(found)[name]["passed"], 0)
        regrading = found["regrading"]
        self.assertEqual({key: regrading[key] for key in ("transcripts", "times", "scores_differ", "first_differs", "faults")},
                         {"transcripts": 4, "times": 4, "scores_differ": 0, "first_differs": 0, "faults": 0})
        names = [endpoint["name"] for endpoint in found["endpoints"]]
        self.assertIn("grader", names)
        self.assertIn("tool find_customer", names)
        self.assertLess(found["disk"]["all_bytes"], found["disk"]["free_bytes"])
        page = (run.dir / "preflight.html").read_text()
        self.assertIn("What the tasks can teach", page)
        self.assertNotIn("http-equiv", page)

    def test_the_same_sampling_says_the_same(self):
        """For any number of workers that sample here."""
        self.endpoints.grade = lambda request: {"score": 0} if worthless(request) else coin(request)
        run = self.make_run("same")
        one, _, _ = self.preflight(run)
        other, _, _ = self.preflight(run, *SMALL, "--workers", "2")
        for key in ("pass_at_k", "pass_rates", "signal", "canaries", "set", "verdict"):
            self.assertEqual(one[key], other[key], key)
        self.assertEqual((one["sampled"]["workers"], other["sampled"]["workers"]), (1, 2))

    def test_a_hopeless_problem(self):
        self.endpoints.grade = lambda request: {"score": 0}
        run = self.make_run("hopeless")
        found, output, _ = self.preflight(run, code=4)
        self.assertEqual(found["verdict"], "no")
        self.assertEqual((found["sampled"]["rollouts"], found["sampled"]["rounds"]), (128, 2))
        self.assertAlmostEqual(found["pass_rates"]["bound_95"], 3 / 128)
        self.assertIsNone(found["plan"]["as_planned"]["hours_to_first_signal"])
        self.assertIn("rollcall sft", output)

    def test_a_grader_that_passes_nothing_at_all(self):
        self.endpoints.grade = lambda request: {"score": 1} if not request["sample"]["output_text"] else coin(request)
        found, output, _ = self.preflight(self.make_run("null"), code=4)
        self.assertEqual(self.canaries(found)["empty"]["passed"], 8)
        self.assertIn("worthless answer (empty) on 8 of 8 tasks", output)

    def test_a_policy_that_passes_what_cannot_be_solved(self):
        data = self.folder / "data"
        rows = [json.loads(line) for line in (data / "valid.jsonl").read_text().splitlines()[:3]]
        (data / "canaries.jsonl").write_text("".join(json.dumps(row | {"trap": True}) + "\n" for row in rows))

        def grade(request):
            if worthless(request):
                return {"score": 0}
            return {"score": 1} if request["item"].get("trap") else coin(request)

        self.endpoints.grade = grade
        files = {split: str(data / f"{split}.jsonl") for split in ("train", "valid", "canaries")}
        run = self.make_run("trapped", data=files, eval={"samples": 2})
        found, output, _ = self.preflight(run, code=4)
        trap = self.canaries(found)["data.canaries"]
        self.assertEqual((trap["graded"], trap["faults"]), (3 * 2, 0))
        self.assertGreater(trap["passed"], 0)
        self.assertIn(f"passes {trap['passed']} of 6 rollouts of data.canaries", output)

    def test_a_grader_that_changes_its_mind(self):
        gradings = collections.Counter()

        def grade(request):
            gradings[request["trace_id"]] += 1
            return {"score": 0} if worthless(request) else {"score": (coin(request)["score"] + gradings[request["trace_id"]]) % 2}

        self.endpoints.grade = grade
        found, output, _ = self.preflight(self.make_run("fickle"), code=4)
        self.assertGreater(found["regrading"]["scores_differ"], 0)
        self.assertIn("does not agree with itself", output)

    def test_a_transcript_is_graded_again_as_it_was(self):
        bodies = {}

        def grade(request):
            sample = json.dumps(request["sample"], sort_keys=True)
            bodies.setdefault(request["trace_id"], []).append(hashlib.sha256(sample.encode()).hexdigest())
            return {"score": 0} if worthless(request) else coin(request)

        self.endpoints.grade = grade
        self.preflight(self.make_run("again"))
        again = [seen for seen in bodies.values() if len(seen) > 1]
        self.assertEqual([len(seen) for seen in again], [5] * 4)
        for seen in again:
            self.assertEqual(len(set(seen)), 1)

    def test_a_dead_endpoint(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/grade"
            found, _, errors = self.preflight(self.make_run("dead", grader={"url": url}), code=5)
        self.assertIsNone(found)
        self.assertIn(url, errors)

    def test_a_tool_that_always_fails(self):
        self.endpoints.tool_fails = lambda headers: True
        self.patience = "2s"
        found, _, errors = self.preflight(self.make_run("broken"), code=5)
        self.assertIsNone(found)
        self.assertIn("HTTP 500", errors)

    def test_a_stop_leaves_no_verdict(self):
        run = self.make_run("stopped")
        self.endpoints.hold_from(5)
        process = run.start(*SMALL, command="preflight")
        self.endpoints.wait_until_held()
        process.send_signal(signal.SIGINT)
        code, errors = run.finish(process)
        self.assertEqual(code, 3, errors)
        self.assertIn("stopped on request", errors)
        self.assertFalse((run.dir / "preflight.json").exists())
        self.assert_nothing_left(run)

    def test_bad_options(self):
        run = self.make_run("bad")
        for words in (("--tasks", "0"), ("--samples", "1"), ("--max-rollouts", "x"), ("--frob",)):
            self.preflight(run, *words, code=2)
        self.assertFalse(run.dir.exists())


if __name__ == "__main__":
    unittest.main()
