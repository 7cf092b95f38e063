// SPDX-License-Identifier: Apache-2.0
#include "trainer/counting.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr std::int64_t kMostRollouts = 10'000'000;  // no loop runs longer, no count overflows

void require(bool holds, const char* what) {
  if (!holds) throw Error(what);
}

}  // namespace

double pass_at_k(std::int64_t n, std::int64_t c, std::int64_t k) {
  require(1 <= k && k <= n && 0 <= c && c <= n && n <= kMostRollouts,
          "pass_at_k: expected 1 <= k <= n, 0 <= c <= n and at most 10 million rollouts");
  double none = 1;  // C(n-c, k) / C(n, k)
  for (std::int64_t i = 0; i < k && none > 0; ++i)
    none *= static_cast<double>(std::max<std::int64_t>(0, n - c - i)) / static_cast<double>(n - i);
  return 1 - none;
}

double expected_max(std::span<const double> rewards, std::int64_t k) {
  const auto n = static_cast<std::int64_t>(rewards.size());
  require(1 <= k && k <= n, "expected_max: expected 1 <= k <= the number of rewards");
  std::vector<double> sorted(rewards.begin(), rewards.end());
  std::sort(sorted.begin(), sorted.end());
  // share: of the subsets whose largest is the i-th, C(i-1, k-1) / C(n, k), from i = n downwards.
  double mean = 0, share = static_cast<double>(k) / static_cast<double>(n);
  for (std::int64_t i = n; i >= k; --i) {
    mean += share * sorted[static_cast<std::size_t>(i - 1)];
    if (i > k) share *= static_cast<double>(i - k) / static_cast<double>(i - 1);
  }
  return mean;
}

double informative_probability(double p, std::int64_t size) {
  require(0 <= p && p <= 1 && size >= 1,
          "informative_probability: expected p from 0 to 1 and a group of at least 1");
  const auto n = static_cast<double>(size);
  return 1 - std::pow(p, n) - std::pow(1 - p, n);
}

Signal signal_of(std::span<const GroupCount> groups) {
  Signal signal;
  for (const auto [k, size] : groups) {
    require(0 <= k && k <= size && size <= kMostRollouts,
            "signal_of: expected 0 <= successes <= size <= 10 million");
    const std::int64_t failures = size - k;
    if (size > 1) signal.mass += static_cast<double>(k * failures) / static_cast<double>(size - 1);
    signal.informative_groups += k > 0 && failures > 0 ? 1 : 0;
    signal.minority_count += std::min(k, failures);
  }
  return signal;
}

NoiseScale gradient_noise_scale(double small_groups, double small_norm_squared, double big_groups,
                                double big_norm_squared) {
  require(0 < small_groups && small_groups < big_groups,
          "gradient_noise_scale: expected 0 < small_groups < big_groups");
  NoiseScale scale;
  scale.gradient_squared = (big_groups * big_norm_squared - small_groups * small_norm_squared) /
                           (big_groups - small_groups);
  scale.noise = (small_norm_squared - big_norm_squared) / (1 / small_groups - 1 / big_groups);
  scale.groups = scale.noise / scale.gradient_squared;
  return scale;
}

double soft_overlong(std::int64_t length, std::int64_t max_length, std::int64_t tail) {
  require(0 < tail && tail <= max_length, "soft_overlong: expected 0 < tail <= max_length");
  const double over = static_cast<double>(length) - static_cast<double>(max_length - tail);
  return -std::clamp(over / static_cast<double>(tail), 0.0, 1.0);
}

}  // namespace rollcall
