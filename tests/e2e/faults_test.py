# SPDX-License-Identifier: Apache-2.0
"""A fault of a tool server is repeated, and where that does not help, left out: it is never a reward of 0."""

import unittest
import zlib

import journal_file
from case import Case

TOOL_FAULT = 1


def chosen(headers, share=3):
    """One rollout in `share`, whatever the attempt."""
    return zlib.crc32(headers["X-Rft-Rollout-Id"].encode()) % share == 0


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
        self.endpoints.tool_fails = chosen
        run = self.trained("left_out")
        self.assertGreater(sum(line["faults"] for line in run.metrics()), 0)
        with journal_file.open_journal(run.journal()) as file:
            rows, uses = file["rows"][:], file["uses"][:]
        faulted = rows["fault"][uses["row"]] != journal_file.NO_FAULT
        self.assertEqual(int(faulted.sum()), sum(line["faults"] for line in run.metrics()))
        self.assertEqual(set(rows["fault"][rows["fault"] != journal_file.NO_FAULT].tolist()), {TOOL_FAULT})
        self.assertFalse(uses["in_loss"][faulted].any())
        self.assertFalse(uses["advantage"][faulted].any())
        for line in run.metrics():
            graded = rows[uses["row"][(uses["step"] == line["step"] - 1) & ~faulted]]
            self.assertAlmostEqual(line["reward_mean"], graded["reward"].mean(), places=12)


if __name__ == "__main__":
    unittest.main()
