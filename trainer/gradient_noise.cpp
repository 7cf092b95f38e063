// SPDX-License-Identifier: Apache-2.0
#include "trainer/gradient_noise.h"

namespace rollcall {

void GradientNoise::add_part(double rollouts_of_part, double squared_norm) {
  part_squares += squared_norm;
  part_rollouts += rollouts_of_part;
  part_rollouts_squared += rollouts_of_part * rollouts_of_part;
}

// With n rollouts of gradients g / n each, E |part|^2 = (a/n)^2 signal + (a/n) noise/n, and the
// whole is the part a = n: two equations, for the sums over the parts and for the whole.
std::optional<GradientNoise::Estimate> GradientNoise::estimate(double squared_norm) const {
  const double of_signal = part_rollouts_squared / (rollouts * rollouts);
  const double of_noise = part_rollouts / rollouts;
  if (!(of_noise > of_signal)) return {};
  const double noise = (part_squares - of_signal * squared_norm) / (of_noise - of_signal);
  return Estimate{squared_norm - noise, rollouts * noise};
}

}  // namespace rollcall
