// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/advantages.h"
#include "trainer/bootstrap.h"
#include "trainer/collector.h"

namespace rollcall {

// What the graded rollouts of one task came to; faults and masked ones are not in it.
struct TaskOutcome {
  std::int64_t task = 0;
  std::int64_t passed = 0;
  std::vector<double> scores{};   // as the grader gave them, one a graded rollout
  std::vector<double> rewards{};  // what training compares

  std::int64_t graded() const { return static_cast<std::int64_t>(scores.size()); }
  double rate() const { return static_cast<double>(passed) / static_cast<double>(graded()); }
};

// By task row; a task without a graded rollout is left out. Whatever the order of the rollouts.
std::vector<TaskOutcome> task_outcomes(std::span<const Collected>,
                                       AdvantageKind = AdvantageKind::kRloo);

// What the best of k rollouts is worth, a mean over the `tasks` that have k graded ones.
struct CurvePoint {
  std::int64_t k = 0, tasks = 0;
  Estimate pass;  // pass@k: one of k passes
  Estimate best;  // expected largest score of k
};

// 1, 2, 4, .. below `samples`, and `samples`.
std::vector<std::int64_t> curve_places(std::int64_t samples);

// At every one of curve_places() that a task has enough graded rollouts for; unbiased estimates
// (counting.h), intervals by resampling tasks.
std::vector<CurvePoint> pass_curve(std::span<const TaskOutcome>, std::int64_t samples,
                                   std::uint64_t seed);

// avg@n: mean over tasks of the mean score of all their graded rollouts.
Estimate mean_score(std::span<const TaskOutcome>, std::uint64_t seed);

}  // namespace rollcall
