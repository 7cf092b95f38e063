// SPDX-License-Identifier: Apache-2.0
#include "trainer/pass_curve.h"

#include <map>
#include <numeric>

#include "trainer/counting.h"
#include "trainer/step_plan.h"

namespace rollcall {

std::vector<TaskOutcome> task_outcomes(std::span<const Collected> collected, AdvantageKind kind) {
  std::map<std::int64_t, TaskOutcome> tasks;
  for (const Collected& c : collected) {
    const Trajectory& t = *c.trajectory;
    if (t.fault != FaultReason::kNone || t.assignment.split == Split::kCanary) continue;
    TaskOutcome& outcome = tasks[t.assignment.task_row];
    outcome.task = t.assignment.task_row;
    outcome.passed += t.grade.passed ? 1 : 0;
    outcome.scores.push_back(t.grade.score);
    outcome.rewards.push_back(compared_value(t.grade, kind));
  }
  std::vector<TaskOutcome> outcomes;
  for (auto& [row, outcome] : tasks) outcomes.push_back(std::move(outcome));
  return outcomes;
}

std::vector<std::int64_t> curve_places(std::int64_t samples) {
  std::vector<std::int64_t> places;
  for (std::int64_t k = 1; k < samples; k *= 2) places.push_back(k);
  if (samples > 0) places.push_back(samples);
  return places;
}

std::vector<CurvePoint> pass_curve(std::span<const TaskOutcome> outcomes, std::int64_t samples,
                                   std::uint64_t seed) {
  std::vector<CurvePoint> curve;
  for (const std::int64_t k : curve_places(samples)) {
    std::vector<double> passes, bests;
    for (const TaskOutcome& o : outcomes) {
      if (o.graded() < k) continue;
      passes.push_back(pass_at_k(o.graded(), o.passed, k));
      bests.push_back(expected_max(o.scores, k));
    }
    if (passes.empty()) continue;
    curve.push_back({.k = k,
                     .tasks = static_cast<std::int64_t>(passes.size()),
                     .pass = bootstrap_rate(passes, seed),
                     .best = bootstrap_mean(bests, seed)});
  }
  return curve;
}

Estimate mean_score(std::span<const TaskOutcome> outcomes, std::uint64_t seed) {
  std::vector<double> means;
  for (const TaskOutcome& o : outcomes)
    means.push_back(std::accumulate(o.scores.begin(), o.scores.end(), 0.0) /
                    static_cast<double>(o.graded()));
  return bootstrap_mean(means, seed);
}

}  // namespace rollcall
