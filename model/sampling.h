// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace rollcall {

// The n-th uniform draw in [0, 1) of a seed; any order, no state (SplitMix64, Steele et al. 2014).
double uniform_draw(std::uint64_t seed, std::uint64_t n);

// A seed for item (a, b, c, ..) under `seed`: all random streams of a run are derived by this.
std::uint64_t derive_seed(std::uint64_t seed, std::span<const std::uint64_t> path);

struct SampledToken {
  std::int32_t id = 0;
  float logprob = 0;  // nats
};

// Draws from softmax(logits[0, n)) at temperature 1 by inverting the distribution at `uniform`.
SampledToken sample_token(std::span<const float> logits, double uniform);

}  // namespace rollcall
