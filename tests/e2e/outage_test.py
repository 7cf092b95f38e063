# SPDX-License-Identifier: Apache-2.0
"""A tool server or grader that is down, flaps, refuses or talks nonsense costs a run time, and nothing else."""

import threading
import time
import unittest

from case import TOOLS, Case
from endpoints import coin
from faults_test import chosen

PATIENT = {"timeout": "60s", "max_retries": 3, "give_up_after": "60s"}


class Outages(Case):
    def make_run(self, name, **changes):
        """One attempt a rollout: none may be lost."""
        call = self.endpoints.url("/call")
        changes = {"tools": [{"name": tool, "url": call, **PATIENT} for tool in TOOLS],
                   "grader": {"max_retries": 3}, "rollout": {"max_attempts": 1}, "cluster": {"workers": 2}, **changes}
        return super().make_run(name, **changes)

    def finish_undisturbed(self, run, process, seconds=60):
        """The run ends well, lost nothing, and is the same as one that nothing happened to."""
        code, errors = run.finish(process, seconds)
        self.assertEqual(code, 0, errors)
        self.assertEqual([line["faults"] for line in run.metrics()], [0, 0, 0])
        self.assertEqual(run.digests(3), self.undisturbed_digests())
        return errors

    def sum_of(self, run, metric):
        return sum(line.get(metric, 0) for line in run.metrics())

    def test_down_for_a_while_and_back_on_the_same_port(self):
        run = self.make_run("down")
        process = run.start()
        self.endpoints.wait_for_grades(20)
        self.endpoints.go_down()
        time.sleep(20)
        self.endpoints.come_up()
        errors = self.finish_undisturbed(run, process)
        self.assertRegex(errors, r"(tool \w+|grader) at http://127\.0\.0\.1:\d+/\w+ does not answer \(.*onnect.*\): waiting for it")
        self.assertRegex(errors, r"step \d/3 .* waiting for .* since \d+ s; [12] workers?, \d+ calls held")
        self.assertRegex(errors, r"answers again after \d+ s")
        names = ["grader", *(f"tool.{tool}" for tool in TOOLS)]
        self.assertGreater(sum(self.sum_of(run, f"endpoint_seconds_waited.{name}") for name in names), 10)
        self.assertGreater(sum(self.sum_of(run, f"endpoint_openings.{name}") for name in names), 0)
        self.assertGreater(sum(self.sum_of(run, f"endpoint_retries.{name}") for name in names), 0)

    def test_flapping(self):
        run = self.make_run("flapping")
        process = run.start()
        for grades in (5, 15, 25, 35, 45):
            self.endpoints.wait_for_grades(grades)
            self.endpoints.go_down()
            time.sleep(1)
            self.endpoints.come_up()
        self.finish_undisturbed(run, process)

    def test_refusals_under_load(self):
        """Two grades at a time where 16 are asked for; the others are told to come back in a second."""
        self.endpoints.room = threading.Semaphore(2)
        run = self.make_run("overload")
        self.finish_undisturbed(run, run.start())
        self.assertGreater(self.endpoints.refused, 0)
        self.assertLess(self.endpoints.refused, 3 * 48)

    def test_garbage_for_a_while(self):
        run = self.make_run("garbage", grader={"max_retries": 6}, cluster={"workers": 1})
        process = run.start()
        self.endpoints.wait_for_grades(20)
        self.endpoints.grade = lambda request: {"status": "starting"}
        time.sleep(4)
        self.endpoints.grade = coin
        errors = self.finish_undisturbed(run, process)
        self.assertIn("grader at", errors)

    def test_given_up_after_its_time_and_gone_on_with_later(self):
        run = self.make_run("given_up", grader={"give_up_after": "3s"}, cluster={"workers": 2, "heartbeat_every": "200ms"})
        grader = self.serve()
        settings = self.settings("given_up", grader={"url": grader.url("/grade")})
        run.file.write_text(run.file.read_text().replace(self.endpoints.url("/grade"), settings["grader"]["url"]))
        process = run.start()
        grader.wait_for_grades(20)
        grader.go_down()
        code, errors = run.finish(process)
        self.assertEqual(code, 5, errors)
        message = rf"grader at {settings['grader']['url']} has failed for \d+ s without a success; the last error: .*onnect"
        self.assertRegex(run.result()["message"], message)
        self.assertRegex(errors, message)
        self.assert_nothing_left(run)
        grader.come_up()
        asked = grader.requests["/grade"]
        self.finish_undisturbed(run, run.start())
        self.assertLess(grader.requests["/grade"] - asked, 48 - 16 + 1, "the first step was graded again")


class Alarms(Case):
    def test_a_step_that_lost_too_many_is_not_applied(self):
        self.endpoints.tool_fails = chosen
        run = self.make_run("alarm", alarms={"discard_share": 0.05}, rollout={"max_attempts": 1})
        code, errors = run.train()
        self.assertEqual(code, 4, errors)
        self.assertRegex(errors, r"faults left out \d+ of 16 rollouts, more than alarms.discard_share \(0.05\) allows")
        self.endpoints.tool_fails = lambda headers: False
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        undisturbed = self.undisturbed_digests()  # the journal has more rows, which a checkpoint counts
        for name in ("state.safetensors", "model.safetensors"):
            self.assertEqual(run.digests(3)[name], undisturbed[name])


if __name__ == "__main__":
    unittest.main()
