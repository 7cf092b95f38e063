// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "trainer/pass_curve.h"
#include "trainer/success_rates.h"

namespace rollcall {

// How often each reward of a task came, most often first.
using ValueCounts = std::vector<std::int64_t>;

// Tasks whose observed pass rate is in (low, high], exactly 0 where both are 0, exactly 1 where
// both are 1; the last bin but one leaves 1 out.
struct RateBin {
  double low = 0, high = 0;
  std::int64_t tasks = 0;
};

// Share of tasks whose group of so many rollouts would have rewards that differ.
struct GroupSignal {
  std::int64_t group_size = 0;
  Estimate share;
  bool extrapolated = false;  // larger than the groups that were seen
};

// Whether more tries still find more: at the curve's last place against the one before.
struct Rise {
  std::int64_t k = 0, before = 0;
  double pass_gain = 0, pass_ratio = 0, best_gain = 0;  // ratio: NaN from 0
  bool goes_on = false;                                 // by a point of pass@k, or of the score
};

// What the rollouts of an untrained policy say about training it. Pure.
struct Learnability {
  std::int64_t tasks = 0, samples = 0, rollouts = 0, passed = 0;  // rollouts: graded ones
  std::vector<CurvePoint> curve;
  Rise rise;
  std::vector<RateBin> histogram;
  double share_zero = 0, share_one = 0, share_between = 0;  // of tasks, by observed pass rate
  double share_mixed = 0;  // of tasks whose rewards differ; as share_between for 0, 1
  std::optional<double> pass_rate_bound;  // where nothing passed: 3 / rollouts (95 %)
  Estimate signal;                        // signal mass that a rollout adds: mean of p (1 - p)
  SuccessRates rates;  // of the higher of two rewards, else of passing; no rates: nothing differs
  std::vector<ValueCounts> values;  // of each task, where there are more than two rewards
  std::vector<GroupSignal> groups;  // 4, 8, .. 256

  double informative(std::int64_t group_size) const;  // share of tasks
};

// Two rewards are fitted by success rates, which say what groups larger than the samples would do.
// More are counted: a group has no signal where all its rewards are the same. What groups larger
// than the samples do is then at least what those of all samples do, and at least what passes and
// failures alone would, by their fit. Their signal is as the batch scaler counts it, scaled by the
// range seen.
Learnability learnability(std::span<const TaskOutcome>, std::int64_t samples, std::uint64_t seed);

}  // namespace rollcall
