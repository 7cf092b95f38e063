// SPDX-License-Identifier: Apache-2.0
#include "trainer/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "model/sampling.h"

namespace rollcall {
namespace {

bool all_are(std::span<const double> values, double wanted) {
  return std::all_of(values.begin(), values.end(), [&](double v) { return v == wanted; });
}

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

std::vector<std::size_t> resampled(std::size_t count, std::uint64_t seed, std::uint64_t round) {
  std::vector<std::size_t> picked(count);
  for (std::size_t i = 0; i < count; ++i) {
    const double u = uniform_draw(seed, round * count + i);
    picked[i] = std::min(count - 1, static_cast<std::size_t>(u * static_cast<double>(count)));
  }
  return picked;
}

Estimate percentile_interval(double value, std::vector<double> replicates) {
  if (replicates.empty()) return {value, value, value};
  std::sort(replicates.begin(), replicates.end());
  const auto last = static_cast<double>(replicates.size() - 1);
  const auto at = [&](double share) {
    return replicates[static_cast<std::size_t>(std::lround(share * last))];
  };
  return {value, at(0.025), at(0.975)};
}

Estimate bootstrap_mean(std::span<const double> values, std::uint64_t seed) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (values.empty()) return {kNone, kNone, kNone};
  std::vector<double> means;
  for (int round = 0; round < kBootstrapRounds; ++round) {
    double sum = 0;
    for (const std::size_t i : resampled(values.size(), seed, static_cast<std::uint64_t>(round)))
      sum += values[i];
    means.push_back(sum / static_cast<double>(values.size()));
  }
  return percentile_interval(mean_of(values), std::move(means));
}

Estimate bootstrap_rate(std::span<const double> values, std::uint64_t seed) {
  const double unseen = std::min(1.0, 3.0 / static_cast<double>(values.size()));
  if (!values.empty() && all_are(values, 0)) return {0, 0, unseen};
  if (!values.empty() && all_are(values, 1)) return {1, 1 - unseen, 1};
  return bootstrap_mean(values, seed);
}

}  // namespace rollcall
