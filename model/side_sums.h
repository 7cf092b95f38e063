// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <numeric>

namespace rollcall {

// The sum of term(value) over float32 values, in several sums side by side: each addition waits for
// the one before. The order of additions follows from the number of values alone.
template <class Values, class Term>
double summed_side_by_side(const Values& values, const Term& term) {
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= values.size(); i += kSums)
    for (std::size_t s = 0; s < kSums; ++s) sums[s] += term(values[i + s]);
  for (; i < values.size(); ++i) sums[0] += term(values[i]);
  return std::accumulate(sums, sums + kSums, 0.0);
}

}  // namespace rollcall
