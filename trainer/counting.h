// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace rollcall {

// Formulas over counts of rollouts and successes, for training, evaluation and planning. Pure; an
// impossible argument (k above n, c above n, a negative count) throws Error.

// Chance that k of n rollouts, drawn without replacement, hold at least one of the c successes:
// 1 - C(n-c, k) / C(n, k), the unbiased estimate of pass@k (2107.03374). 1 <= k <= n.
double pass_at_k(std::int64_t n, std::int64_t c, std::int64_t k);

// Mean over all k-subsets of the largest reward in it (best-of-k). 1 <= k <= rewards.size().
double expected_max(std::span<const double> rewards, std::int64_t k);

// Chance that a group of `size` rollouts of success rate p holds both outcomes.
double informative_probability(double p, std::int64_t size);

struct GroupCount {
  std::int64_t successes = 0, size = 0;
};
struct Signal {
  double mass = 0;  // sum of k (G - k) / (G - 1): unbiased for sum of G p (1 - p)
  std::int64_t informative_groups = 0;  // both outcomes present
  std::int64_t minority_count = 0;      // rollouts of each group's rarer outcome
};
Signal signal_of(std::span<const GroupCount>);

// From squared gradient norms of a small and a big batch, in prompt groups (1812.06162, appendix
// A).
struct NoiseScale {
  double gradient_squared = 0;  // |G|^2 without noise
  double noise = 0;             // trace of the covariance of one group's gradient
  double groups = 0;            // noise / |G|^2: batch size where noise and signal are equal
};
NoiseScale gradient_noise_scale(double small_groups, double small_norm_squared, double big_groups,
                                double big_norm_squared);

// Penalty of an answer's length: 0 up to max_length - tail, then linear down to -1 at max_length
// (DAPO, 2503.14476).
double soft_overlong(std::int64_t length, std::int64_t max_length, std::int64_t tail);

}  // namespace rollcall
