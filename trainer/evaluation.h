// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trainer/collector.h"
#include "trainer/comparison.h"
#include "trainer/pass_curve.h"
#include "trainer/training_loop.h"

namespace rollcall {

// Assignments of one evaluation: the first `tasks` held-out rows (0: all), `samples` rollouts each,
// and all canaries likewise.
// Their groups have ids of their own, so that training goes the same way with and without them.
std::vector<Assignment> plan_evaluation(const TrainSetup&, std::int64_t step);

// Pass rates of the held-out rollouts of one evaluation; what is not graded leaves its task's mean.
Evaluation evaluate_rollouts(std::span<const Collected>);

// What pass@1 would be by the second grader, over the held-out rollouts that it graded; nothing if
// there are none.
std::optional<double> second_pass_at_1(std::span<const Collected>);

// Share of the graded rollouts of canaries that pass; nothing if there are none.
std::optional<double> canary_pass_rate(std::span<const Collected>);

// All that `rollcall eval` says of one policy.
struct PolicyEvaluation {
  std::string model;  // as it was asked for
  Evaluation summary;
  std::vector<TaskOutcome> outcomes;
  std::vector<CurvePoint> curve;
  Estimate mean_score;  // avg@n, n: summary.samples
};
PolicyEvaluation evaluate_policy(const std::string& model, std::span<const Collected>,
                                 std::uint64_t seed);

// Of one policy, and of a baseline on the same tasks and seeds if there is one.
struct EvaluationReport {
  std::string dataset;
  PolicyEvaluation policy;
  std::optional<PolicyEvaluation> baseline;
  std::optional<Comparison> comparison;
  std::vector<std::string> differences;  // from how the policy was trained, in its user's words
  std::int64_t training_rows = 0;        // held-out rows that were trained on
};

// One JSON object a line; its keys are in docs/runs.md.
std::string evaluation_report_json(const EvaluationReport&);
// A few lines for a person.
std::string evaluation_report_text(const EvaluationReport&);

}  // namespace rollcall
