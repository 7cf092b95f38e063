// SPDX-License-Identifier: Apache-2.0
#include "trainer/comparison.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

namespace rollcall {

double sign_test(std::int64_t won, std::int64_t lost) {
  const auto n = static_cast<double>(won + lost);
  double tail = 0;
  for (std::int64_t i = 0; i <= std::min(won, lost); ++i) {
    const auto k = static_cast<double>(i);
    tail += std::exp(std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) -
                     n * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

Comparison compare_paired(std::span<const TaskOutcome> policy,
                          std::span<const TaskOutcome> baseline, std::uint64_t seed) {
  std::map<std::int64_t, double> before;
  for (const TaskOutcome& o : baseline) before[o.task] = o.rate();
  Comparison result;
  std::vector<double> changes;
  for (const TaskOutcome& o : policy) {
    const auto other = before.find(o.task);
    if (other == before.end()) continue;
    const double change = o.rate() - other->second;
    changes.push_back(change);
    ++(change > 0 ? result.won : change < 0 ? result.lost : result.tied);
  }
  result.tasks = static_cast<std::int64_t>(changes.size());
  result.difference = bootstrap_mean(changes, seed);
  result.sign_test_p = sign_test(result.won, result.lost);
  return result;
}

}  // namespace rollcall
