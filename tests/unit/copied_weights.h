// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "trainer/optimized_weights.h"

namespace rollcall {

inline std::vector<float> copied(const SharedFloats& floats) {
  return {floats.begin(), floats.end()};
}

// As they are now, whatever becomes of those who hold them.
inline OptimizedWeights copied(const OptimizedWeights& weights) {
  return {weights.steps, copied(weights.masters), copied(weights.first_moment),
          copied(weights.second_moment)};
}

}  // namespace rollcall
