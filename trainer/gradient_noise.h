// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

namespace rollcall {

// How much of a step's gradient is noise: from the squared norms of what parts of its rollouts add
// to it and of the whole, whose rollouts count alike (McCandlish et al. 2018, 1812.06162, appendix
// A.1, for parts of different sizes that need not cover the step). Sums over the parts: learners
// add up.
struct GradientNoise {
  double rollouts = 0;  // of the whole
  double part_squares = 0, part_rollouts = 0, part_rollouts_squared = 0;

  void add_part(double rollouts, double squared_norm);

  // Unbiased, and for a single step so noisy that `signal` may be negative: the mean of the noise
  // over many steps, divided by the mean of the signal, is the gradient noise scale in rollouts.
  struct Estimate {
    double signal = 0;  // squared norm of the expected gradient
    double noise = 0;   // variance of one rollout's gradient, summed over parameters
  };
  // Nothing where no part is smaller than the whole.
  std::optional<Estimate> estimate(double squared_norm) const;
};

}  // namespace rollcall
