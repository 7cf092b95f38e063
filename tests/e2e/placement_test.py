# SPDX-License-Identifier: Apache-2.0
"""With policy.placement: learners one engine samples for all workers, and nothing of a run shows it but who did the work."""

import json
import pathlib
import signal
import unittest

import processes
from case import Case, merge
from places import LEDGER
from replay_test import replay

LEARNERS = {"placement": "learners"}


def shared_bytes(process):
    """Of anonymous files that it has mapped: the lead learner's weights."""
    lines = pathlib.Path(f"/proc/{process}/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines if "memfd:" in line]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ranges)


class Placement(Case):
    def settings(self, name, **changes):
        return merge(super().settings(name, policy=LEARNERS), changes)

    def undisturbed(self):
        own = self.trained("own", policy={"placement": "workers"})
        self.assert_learnt(own)
        return own.digests(3)

    def test_the_run_is_that_of_workers_with_engines_of_their_own(self):
        digests = self.undisturbed()
        for workers in (1, 3):
            with self.subTest(workers=workers):
                self.assertEqual(self.trained(f"of{workers}", cluster={"workers": workers}).digests(3), digests)
        half = {"model": {"dtype": "bfloat16"}, "cluster": {"workers": 2}}
        own = self.trained("own_half", policy={"placement": "workers"}, **half)
        self.assertEqual(self.trained("half", **half).digests(3), own.digests(3))

    def test_what_a_dead_worker_had_asked_for_is_sampled_anew(self):
        run = self.make_run("bereft", cluster={"workers": 2})
        self.endpoints.hold_from(16 + 6)  # in the second step
        process = run.start()
        self.endpoints.wait_until_held()
        run.signal(signal.SIGKILL, 2)
        self.wait_for(lambda: "lost worker 2" in run.log(0), "the loss is not noticed")
        self.endpoints.release()
        code, errors = run.finish(process)
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed())

    def test_a_run_that_was_killed_goes_on(self):
        run = self.make_run("killed", cluster={"workers": 2}, checkpoint={"every": 1})
        self.endpoints.hold_from(16 + 6)
        with self.running(run):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        code, errors = run.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(run.digests(3), self.undisturbed())

    def test_workers_hold_no_weights(self):
        shared = {}
        for placement in ("workers", "learners"):
            run = self.make_run(placement, policy={"placement": placement})
            self.endpoints.hold_from(2)
            with self.running(run):
                self.endpoints.wait_until_held()
                shared[placement] = shared_bytes(processes.ranks(run.file)[1])
            self.endpoints.release()
        weights = (LEDGER / "model" / "model.safetensors").stat().st_size
        self.assertGreater(shared["workers"], weights)
        self.assertLess(shared["learners"], weights / 10)

    def test_rollouts_of_later_steps_go_on_while_it_learns(self):
        run = self.trained("ahead", run={"steps": 5}, policy={**LEARNERS, "max_lag": 1}, checkpoint={"every": 2}, cluster={"workers": 2})
        done = replay(run.dir, 4)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertGreater(max(line.get("version_lag_mean", 0) for line in run.metrics()), 0, "nothing was sampled ahead")

    def test_evaluations_are_the_same(self):
        held_out = {"data": {"valid": str(self.folder / "data" / "valid.jsonl")}, "eval": {"samples": 4}}
        results = []
        for placement in ("workers", "learners"):
            code, output, errors = self.make_run(placement, policy={"placement": placement}, **held_out).evaluate()
            self.assertEqual(code, 0, errors)
            result = json.loads(output)
            results.append({key: result[key] for key in ("pass_at_k", "avg_at_n", "pass_at_1")})
        self.assertEqual(results[0], results[1])


if __name__ == "__main__":
    unittest.main()
