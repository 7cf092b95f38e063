# SPDX-License-Identifier: Apache-2.0
"""A fault of a tool server is repeated, and where that does not help, left out: it is never a reward of 0."""

import json
import unittest
import zlib

import journal_file
from case import Case

TOOL_FAULT = 1


def chosen(headers, share=3):
    """One rollout in `share`, whatever the attempt."""
    return zlib.crc32(headers["X-Rft-Rollout-Id"].encode()) % share == 0


def beyond_help(headers):
    """Two rollouts of each step: three that fail while no other is left to succeed look like a server that is down."""
    group, member = headers["X-Rft-Rollout-Id"].split("_")[-2:]
    return member == "0" and int(group) % 2 == 0


class ToolFaults(Case):
    def test_a_rollout_that_is_repeated_leaves_no_trace_in_the_weights(self):
        self.endpoints.tool_fails = lambda headers: headers["X-Rft-Attempt"] == "0" and chosen(headers)
        run = self.trained("repeated", cluster={"workers": 2})
        self.assertGreater(self.endpoints.requests["/call"], 0, "the model calls no tools")
        self.assertEqual([line["faults"] for line in run.metrics()], [0, 0, 0])
        rows = journal_file.check_rows(run.journal(), self)
        self.assertIn(1, rows["attempt"])

        self.endpoints.tool_fails = lambda headers: False
        self.assertEqual(run.digests(3), self.undisturbed_digests())

    def test_a_rollout_that_cannot_be_helped_is_left_out(self):
        self.endpoints.tool_fails = beyond_help
        run = self.make_run("left_out", rollout={"max_attempts": 1})
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertGreater(sum(line["faults"] for line in run.metrics()), 0)
        with journal_file.open_journal(run.journal()) as file:
            rows, uses = file["rows"][:], file["uses"][:]
        faulted = rows["fault"][uses["row"]] != journal_file.NO_FAULT
        self.assertEqual(int(faulted.sum()), sum(line["faults"] for line in run.metrics()))
        self.assertEqual(set(rows["fault"][rows["fault"] != journal_file.NO_FAULT].tolist()), {TOOL_FAULT})
        self.assertFalse(uses["in_loss"][faulted].any())
        self.assertFalse(uses["advantage"][faulted].any())
        self.assertIn("(tool_fault)", errors)
        self.assertRegex(errors, r"warning.*step \d: a rollout is left out: tool_fault: tool \w+ at http://127")
        self.assertIn(f"{int(faulted.sum())} of {len(rows)} rollouts since this start ended in a fault", errors)
        for line in run.metrics():
            graded = rows[uses["row"][(uses["step"] == line["step"] - 1) & ~faulted]]
            self.assertAlmostEqual(line["reward_mean"], graded["reward"].mean(), places=12)


class Masks(Case):
    def test_a_step_whose_rollouts_are_all_masked_goes_by_without_an_update(self):
        self.endpoints.grade = lambda request: {"mask_sample": True}
        run = self.make_run("masked", run={"steps": 2})
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        for line in run.metrics():
            self.assertEqual((line["masked"], line["faults"], line["reward_mean"]), (16, 0, None))
        self.assertIn("masked 16", errors)
        self.assertIn("no update", errors)


class Evaluations(Case):
    def make_run(self, name, **changes):
        valid = str(self.folder / "data" / "valid.jsonl")
        return super().make_run(name, data={"valid": valid}, eval={"samples": 3}, **changes)

    def test_a_dead_tool_gives_no_number(self):
        self.endpoints.tool_fails = lambda headers: True
        self.patience = "2s"
        code, output, errors = self.make_run("dead").evaluate()
        self.assertEqual(code, 5, errors)
        self.assertEqual(output, "")
        self.assertRegex(errors, r"tool \w+ at http://127.* has failed for \d+ s without a success; the last error: HTTP 500")

    def test_faults_are_told_apart_from_failures(self):
        """All rollouts of two of the four tasks fault."""
        self.endpoints.tool_fails = lambda headers: headers["X-Rft-Rollout-Id"].split("_")[3] in "01"
        code, output, errors = self.make_run("half").evaluate()
        self.assertEqual(code, 0, errors)
        result = json.loads(output)
        self.assertEqual({key: result[key] for key in ("tasks", "samples", "graded_tasks", "faults", "masked")},
                         {"tasks": 4, "samples": 3, "graded_tasks": 2, "faults": 6, "masked": 0})
        self.assertIn("left out: 6 of 12 rollouts (6 faults, 0 masked), and with them 2 of 4 tasks", errors)

    def test_masks_alone_are_no_fault(self):
        self.endpoints.grade = lambda request: {"mask_sample": True}
        code, output, errors = self.make_run("masks").evaluate()
        self.assertEqual(code, 0, errors)
        self.assertIsNone(json.loads(output)["pass_at_1"])
        self.assertEqual(json.loads(output)["masked"], 12)


if __name__ == "__main__":
    unittest.main()
