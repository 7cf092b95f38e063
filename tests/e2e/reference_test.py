# SPDX-License-Identifier: Apache-2.0
"""algorithm.kl: a price on going away from the policy that the run began with."""

import unittest

import journal_file
from case import Case
from places import LEDGER

STEPS = 3
LORA = {"path": str(LEDGER / "model"), "train": "lora", "lora": {"rank": 4, "alpha": 8}}


class Reference(Case):
    def priced(self, name, form, coefficient=0.1, **changes):
        algorithm = {"kl": {"coefficient": coefficient, "form": form}}
        return self.trained(name, run={"steps": STEPS}, algorithm=algorithm, **changes).metrics()

    def test_divergence_begins_at_zero_and_is_what_the_price_holds_down(self):
        for form in ("k2", "k3", "k3_weighted"):
            with self.subTest(form):
                free, dear = (
                    [line["reference_kl_nats_per_token"] for line in self.priced(f"{form}{coefficient:g}", form, coefficient)]
                    for coefficient in (1e-9, 100)
                )
                self.assertLess(abs(free[0]), 1e-6)
                self.assertGreater(free[-1], 0)
                self.assertLess(dear[-1], free[-1])

    def test_the_price_is_taken_off_rewards(self):
        run = self.trained("reward", run={"steps": STEPS}, algorithm={"kl": {"coefficient": 0.1}})
        penalties = [line["reward_penalty_mean"] for line in run.metrics()]
        self.assertLess(abs(penalties[0]), 1e-6)
        self.assertGreater(abs(penalties[-1]), 1e-6)
        with journal_file.open_journal(run.journal()) as file:
            uses, rows = file["uses"][:], file["rows"][:]
        for step in range(STEPS):
            of_step = uses[uses["step"] == step]
            taken = rows["reward"][of_step["row"]] - of_step["reward"]
            self.assertAlmostEqual(float(taken.mean()), penalties[step], places=5)

    def test_two_learners_measure_the_same(self):
        for form, metric in (("k1_reward", "reward_penalty_mean"), ("k3", "reference_kl_nats_per_token")):
            one, two = (self.priced(f"{form}{learners}", form, cluster={"learners": learners}) for learners in (1, 2))
            for a, b in zip(one, two, strict=True):
                self.assertAlmostEqual(a[metric], b[metric], places=4)

    def test_an_adapter_diverges_from_the_frozen_weights(self):
        metrics = self.priced("lora", "k3", model=LORA)
        self.assertLess(abs(metrics[0]["reference_kl_nats_per_token"]), 1e-6)
        self.assertGreater(metrics[-1]["reference_kl_nats_per_token"], 0)

    def test_a_run_that_was_cut_off_comes_to_the_same_bits(self):
        settings = {"run": {"steps": STEPS}, "algorithm": {"kl": {"coefficient": 0.1}}, "checkpoint": {"every": 1}}
        whole = self.trained("whole", **settings)
        cut = self.make_run("cut", **settings)
        self.endpoints.hold_from(24)
        with self.running(cut):
            self.endpoints.wait_until_held()
        self.endpoints.release()
        code, errors = cut.train()
        self.assertEqual(code, 0, errors)
        self.assertEqual(cut.digests(STEPS), whole.digests(STEPS))


if __name__ == "__main__":
    unittest.main()
