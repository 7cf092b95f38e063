# SPDX-License-Identifier: Apache-2.0
"""The same run gives the same bytes, whatever number of workers makes the rollouts."""

import unittest

from case import Case

AGREEMENT = {"mismatch_k3_nats_mean": 0, "mismatch_chi2_mean": 0, "mismatch_ess_fraction": 1, "tokens_rejected": 0}


class Determinism(Case):
    def test_number_of_workers_does_not_reach_the_weights(self):
        one = self.trained("one", cluster={"workers": 1})
        self.assert_learnt(one)
        for workers in (2, 4):
            with self.subTest(workers=workers):
                many = self.trained(f"many{workers}", cluster={"workers": workers})
                self.assertEqual(many.digests(3), one.digests(3))

    def test_workers_without_work_hold_no_publication_up(self):
        """The first evaluation gives all workers the first weights; the steps after it need one of them."""
        settings = {
            "run": {"steps": 4}, "batch": {"prompts": 1, "group_size": 4}, "eval": {"samples": 4},
            "data": {"valid": str(self.folder / "data" / "valid.jsonl")},
        }
        one = self.trained("alone", **settings, cluster={"workers": 1})
        many = self.trained("idle", **settings, cluster={"workers": 3})
        self.assertEqual(many.digests(4), one.digests(4))

    def test_number_of_workers_does_not_reach_a_bfloat16_policy(self):
        half = {"model": {"dtype": "bfloat16"}, "run": {"steps": 2}}
        one = self.trained("half1", **half, cluster={"workers": 1})
        self.assert_learnt(one)
        self.assertEqual(max(line["logprob_gap_max"] for line in one.metrics() if "loss" in line), 0)
        two = self.trained("half2", **half, cluster={"workers": 2})
        self.assertEqual(two.digests(2), one.digests(2))
        wide = self.trained("wide", run={"steps": 2}, cluster={"workers": 2})
        self.assertNotEqual(wide.digests(2)["state.safetensors"], one.digests(2)["state.safetensors"])

    def test_number_of_threads_does_not_reach_the_weights(self):
        one = self.trained("one_thread")
        for threads in (2, 3):
            with self.subTest(threads=threads):
                many = self.make_run(f"threads{threads}")
                many.variables["OMP_NUM_THREADS"] = str(threads)
                code, errors = many.train()
                self.assertEqual(code, 0, errors)
                self.assertEqual(many.digests(3), one.digests(3))

    def test_another_seed_reaches_the_weights(self):
        one = self.trained("one", run={"steps": 1})
        other = self.trained("other", run={"steps": 1, "seed": 2})
        self.assertNotEqual(other.digests(1)["state.safetensors"], one.digests(1)["state.safetensors"])

    def test_two_learners_compute_the_same_update(self):
        one = self.trained("one").metrics()[0]
        two = self.trained("two", cluster={"learners": 2}).metrics()[0]
        for name in ("reward_mean", "tokens_sampled", "loss", "grad_norm_l2", "entropy_mean", "ratio_mean"):
            self.assertAlmostEqual(two[name], one[name], delta=1e-5 * max(1, abs(one[name])), msg=name)

    def test_corrections_change_nothing_where_sampler_and_learner_agree(self):
        plain = self.trained("plain", run={"steps": 2})
        masked = self.trained("masked", run={"steps": 2}, algorithm={"corrections": ["geo_mask", "k3_mask", "veto"]})
        self.assertEqual(masked.digests(2), plain.digests(2))
        for line in masked.metrics():
            self.assertEqual([line[name] for name in AGREEMENT], list(AGREEMENT.values()))

    def test_two_learners_agree_on_what_corrections_leave(self):
        algorithm = {"advantage": "passk", "passk_k": 2, "loss": "sapo", "anchor": "old", "corrections": ["token_tis", "icepop"]}
        one = self.trained("one", run={"steps": 1}, algorithm=algorithm).metrics()[0]
        two = self.trained("two", run={"steps": 1}, algorithm=algorithm, cluster={"learners": 2}).metrics()[0]
        for name in ("loss", "grad_norm_l2"):
            self.assertAlmostEqual(two[name], one[name], delta=1e-5 * max(1, abs(one[name])), msg=name)


if __name__ == "__main__":
    unittest.main()
