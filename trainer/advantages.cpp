// SPDX-License-Identifier: Apache-2.0
#include "trainer/advantages.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "comms/error.h"
#include "trainer/counting.h"
#include "trainer/names.h"

namespace rollcall {
namespace {

// In the order of AdvantageKind.
constexpr std::array<std::string_view, 8> kAdvantageNames{
    "rloo", "rloo_batch_std", "drgrpo", "grpo_std", "batch_std", "maxrl", "passk", "gae"};

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

// What a centred reward is multiplied with.
double scale_of(std::span<const double> group, const AdvantageOptions& options,
                double batch_deviation) {
  const double n = static_cast<double>(group.size()), eps = options.eps;
  switch (options.kind) {
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
    case AdvantageKind::kPassK:
    case AdvantageKind::kGae:
      break;
  }
  return 0;
}

std::vector<double> centred_advantages(std::span<const double> group,
                                       const AdvantageOptions& options, double batch_deviation) {
  const double mean = mean_of(group), scale = scale_of(group, options, batch_deviation);
  std::vector<double> values;
  for (double reward : group) values.push_back((reward - mean) * scale);
  return values;
}

// Of a k-subset that holds a rollout, 1 if it holds a success: averaged over the subsets, centred
// and scaled by the mean and the deviation over all k-subsets (2508.10751).
std::vector<double> passk_advantages(std::span<const double> group, std::int64_t k) {
  const auto success = [](double reward) { return reward > 0.5; };
  const auto n = static_cast<std::int64_t>(group.size());
  const auto c = std::count_if(group.begin(), group.end(), success);
  std::vector<double> values(group.size(), 0.0);
  if (n <= k) return values;
  const double mean = pass_at_k(n, c, k), deviation = std::sqrt(mean * (1 - mean));
  if (deviation == 0) return values;
  // The k-1 others of a failure's subset come from n-1 rollouts, c of them successes.
  const double with_failure = k > 1 ? pass_at_k(n - 1, c, k - 1) : 0;
  std::transform(group.begin(), group.end(), values.begin(), [&](double reward) {
    return ((success(reward) ? 1 : with_failure) - mean) / deviation;
  });
  return values;
}

}  // namespace

std::span<const std::string_view> advantage_names() { return kAdvantageNames; }

AdvantageKind advantage_kind(const std::string& name) {
  return static_cast<AdvantageKind>(index_of_name(kAdvantageNames, name, "advantage"));
}

std::vector<std::vector<double>> group_advantages(std::span<const std::vector<double>> rewards,
                                                  const AdvantageOptions& options) {
  if (options.kind == AdvantageKind::kGae)
    throw input_error("gae compares a rollout with a critic's values, not with its group",
                      "use another advantage, or the objective 'critic'");
  const std::vector<double> flat = flatten(rewards);
  check_finite(flat);
  if (options.kind == AdvantageKind::kMaxRl)
    for (const double r : flat)
      if (r < 0)
        throw input_error(
            "maxrl divides by the mean reward of a group, and a rollout earned " +
                std::to_string(r),
            "resume with another advantage; or let the grader's scores begin at 0, in a run of "
            "another name");
  const double batch_deviation = deviation_of(flat);
  std::vector<std::vector<double>> advantages;
  advantages.reserve(rewards.size());
  for (const std::vector<double>& group : rewards) {
    if (!has_signal(group)) {
      advantages.emplace_back(group.size(), 0.0);
    } else if (options.kind == AdvantageKind::kPassK) {
      advantages.push_back(passk_advantages(group, options.k));
    } else {
      advantages.push_back(centred_advantages(group, options, batch_deviation));
    }
  }
  return advantages;
}

bool has_signal(std::span<const double> rewards) { return !all_equal(rewards); }

}  // namespace rollcall
