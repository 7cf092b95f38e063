// SPDX-License-Identifier: Apache-2.0
#include "trainer/evaluation.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>

#include "trainer/counting.h"
#include "trainer/step_plan.h"

namespace rollcall {

namespace {

constexpr std::int64_t kFirstGroup = std::int64_t{1} << 40;

// pass@2, pass@4, .. of an evaluation with several samples.
std::vector<std::pair<std::int64_t, double>> later_places(std::span<const TaskOutcome> outcomes,
                                                          std::int64_t samples) {
  std::vector<std::pair<std::int64_t, double>> rates;
  for (const std::int64_t k : curve_places(samples)) {
    double sum = 0, tasks = 0;
    for (const TaskOutcome& o : outcomes) {
      if (o.graded() < k) continue;
      sum += pass_at_k(o.graded(), o.passed, k);
      ++tasks;
    }
    if (k > 1 && tasks > 0) rates.emplace_back(k, sum / tasks);
  }
  return rates;
}

}  // namespace

std::vector<Assignment> plan_evaluation(const TrainSetup& setup, std::int64_t step) {
  const std::int64_t wanted = setup.eval.tasks == 0 ? setup.valid_tasks : setup.eval.tasks;
  std::int64_t group = kFirstGroup + step * (setup.valid_tasks + setup.canary_tasks);
  std::vector<Assignment> plan;
  const auto add = [&](Split split, std::int64_t tasks) {
    std::vector<std::int64_t> rows(static_cast<std::size_t>(tasks));
    std::iota(rows.begin(), rows.end(), std::int64_t{0});
    std::ranges::copy(
        plan_groups(setup.run.seed, split, step, step, rows, setup.eval.samples, group),
        std::back_inserter(plan));
    group += tasks;
  };
  add(Split::kValid, std::min(wanted, setup.valid_tasks));
  add(Split::kCanary, setup.canary_tasks);
  return plan;
}

Evaluation evaluate_rollouts(std::span<const Collected> collected) {
  struct Count {
    double passed = 0, graded = 0;
  };
  std::map<std::int64_t, Count> tasks;
  Evaluation result;
  std::int64_t rollouts = 0;
  for (const auto& c : collected) {
    const Trajectory& t = *c.trajectory;
    if (t.assignment.split == Split::kCanary) continue;
    ++rollouts;
    Count& count = tasks[t.assignment.task_row];
    result.faults += infrastructure_failed(t.fault) ? 1 : 0;
    result.masked += t.fault == FaultReason::kMasked ? 1 : 0;
    if (t.fault != FaultReason::kNone) continue;
    count.graded += 1;
    count.passed += t.grade.passed ? 1.0 : 0.0;
  }
  if (tasks.empty()) return result;
  result.tasks = static_cast<std::int64_t>(tasks.size());
  result.samples = rollouts / result.tasks;
  std::erase_if(tasks, [](const auto& task) { return task.second.graded == 0; });
  result.graded_tasks = static_cast<std::int64_t>(tasks.size());
  if (tasks.empty()) return result;
  const auto n = static_cast<double>(tasks.size());
  double sum = 0, squares = 0;
  for (const auto& [row, count] : tasks) {
    const double rate = count.passed / count.graded;
    sum += rate;
    squares += rate * rate;
  }
  result.pass_at_1 = sum / n;
  const double variance = n > 1 ? std::max(0.0, (squares - sum * sum / n) / (n - 1)) : 0.0;
  const double half_width = 1.96 * std::sqrt(variance / n);
  result.low_95 = std::max(0.0, result.pass_at_1 - half_width);
  result.high_95 = std::min(1.0, result.pass_at_1 + half_width);
  result.pass_at_k = later_places(task_outcomes(collected), result.samples);
  return result;
}

std::optional<double> second_pass_at_1(std::span<const Collected> collected) {
  std::map<std::int64_t, std::pair<double, double>> tasks;  // passed, graded
  for (const auto& [row, t, recovered] : collected) {
    if (t->assignment.split != Split::kValid) continue;
    const auto second = sub_reward(t->grade, kSecondPassed);
    if (!second) continue;
    auto& [passed, graded] = tasks[t->assignment.task_row];
    passed += *second;
    graded += 1;
  }
  double sum = 0;
  for (const auto& [row, task] : tasks) sum += task.first / task.second;
  if (tasks.empty()) return std::nullopt;
  return sum / static_cast<double>(tasks.size());
}

std::optional<double> canary_pass_rate(std::span<const Collected> collected) {
  double graded = 0, passed = 0;
  for (const auto& [row, t, recovered] : collected) {
    if (t->assignment.split != Split::kCanary || t->fault != FaultReason::kNone) continue;
    graded += 1;
    passed += t->grade.passed ? 1 : 0;
  }
  return graded > 0 ? std::optional(passed / graded) : std::nullopt;
}

PolicyEvaluation evaluate_policy(const std::string& model, std::span<const Collected> collected,
                                 std::uint64_t seed) {
  PolicyEvaluation e{.model = model,
                     .summary = evaluate_rollouts(collected),
                     .outcomes = task_outcomes(collected),
                     .curve = {},
                     .mean_score = {}};
  e.curve = pass_curve(e.outcomes, e.summary.samples, seed);
  e.mean_score = mean_score(e.outcomes, seed);
  return e;
}

}  // namespace rollcall
