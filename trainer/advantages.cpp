// SPDX-License-Identifier: Apache-2.0
#include "trainer/advantages.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "comms/error.h"

namespace rollcall {
namespace {

// In the order of AdvantageKind.
constexpr std::array<std::string_view, 6> kNames{"rloo",     "rloo_batch_std", "drgrpo",
                                                 "grpo_std", "batch_std",      "maxrl"};

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

bool all_equal(std::span<const double> values) {
  return std::adjacent_find(values.begin(), values.end(), std::not_equal_to<>()) == values.end();
}

// Sample standard deviation (n-1). Exactly 0 for equal values, where a rounded mean would leave
// dust.
double deviation_of(std::span<const double> values) {
  if (values.size() < 2) return 0;
  const double mean = mean_of(values);
  double squares = 0;
  for (double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

std::vector<double> flatten(std::span<const std::vector<double>> groups) {
  std::vector<double> flat;
  for (const auto& group : groups) flat.insert(flat.end(), group.begin(), group.end());
  return flat;
}

void check_finite(std::span<const double> rewards) {
  for (double reward : rewards) {
    if (!std::isfinite(reward)) {
      throw Error("a reward is not a finite number",
                  "look at the grader's replies in the journal: rollcall inspect RUN");
    }
  }
}

double inverse_deviation(double deviation, double eps) {
  return deviation > 0 ? 1 / (deviation + eps) : 0;
}

// What a centred reward is multiplied with (algorithms.md 1.2).
double scale_of(std::span<const double> group, AdvantageKind kind, double batch_deviation,
                double eps) {
  const double n = static_cast<double>(group.size());
  switch (kind) {
    case AdvantageKind::kRloo:
      return n / (n - 1);
    case AdvantageKind::kRlooBatchStd:
      return n / (n - 1) * inverse_deviation(batch_deviation, eps);
    case AdvantageKind::kDrGrpo:
      return 1;
    case AdvantageKind::kGrpoStd:
      return inverse_deviation(deviation_of(group), eps);
    case AdvantageKind::kBatchStd:
      return inverse_deviation(batch_deviation, eps);
    case AdvantageKind::kMaxRl:
      return mean_of(group) > 0 ? 1 / mean_of(group) : 0;
  }
  return 0;
}

}  // namespace

std::span<const std::string_view> advantage_names() { return kNames; }

AdvantageKind advantage_kind(const std::string& name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) {
    std::string known;
    for (std::string_view one : kNames) known.append(known.empty() ? "" : ", ").append(one);
    throw input_error("unknown advantage '" + name + "'", "use one of " + known);
  }
  return static_cast<AdvantageKind>(found - kNames.begin());
}

std::vector<std::vector<double>> group_advantages(std::span<const std::vector<double>> rewards,
                                                  AdvantageKind kind, double eps) {
  const std::vector<double> flat = flatten(rewards);
  check_finite(flat);
  const double batch_deviation = deviation_of(flat);
  std::vector<std::vector<double>> advantages;
  advantages.reserve(rewards.size());
  for (const std::vector<double>& group : rewards) {
    std::vector<double> values(group.size(), 0.0);
    if (has_signal(group)) {
      const double mean = mean_of(group);
      const double scale = scale_of(group, kind, batch_deviation, eps);
      for (std::size_t i = 0; i < group.size(); ++i) values[i] = (group[i] - mean) * scale;
    }
    advantages.push_back(std::move(values));
  }
  return advantages;
}

bool has_signal(std::span<const double> rewards) { return !all_equal(rewards); }

}  // namespace rollcall
