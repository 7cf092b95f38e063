// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "trainer/estimate_json.h"
#include "trainer/evaluation.h"
#include "trainer/step_metrics.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

// The fields of result.json's `eval`, and what several samples add to them.
ordered_json policy_json(const PolicyEvaluation& e) {
  ordered_json json = ordered_json::parse(evaluation_json(e.summary));
  json["pass_at_k"] = curve_json(e.curve);
  json["avg_at_n"] = estimate_json(e.mean_score);
  return json;
}

ordered_json comparison_json(const Comparison& c) {
  return {{"tasks", c.tasks}, {"pass_at_1_difference", estimate_json(c.difference)},
          {"won", c.won},     {"lost", c.lost},
          {"tied", c.tied},   {"sign_test_p", c.sign_test_p}};
}

std::string comparison_text(const Comparison& c) {
  if (c.tasks == 0) return "no task was graded with both policies\n";
  return fmt::format(
      "difference of pass@1 {:+.1f} points ({:+.1f} to {:+.1f}) on the same {} tasks: {} won, {} "
      "lost, {} tied; sign test p = {:.2g}\n",
      100 * c.difference.mean, 100 * c.difference.low_95, 100 * c.difference.high_95, c.tasks,
      c.won, c.lost, c.tied, c.sign_test_p);
}

std::string policy_text(const PolicyEvaluation& e) {
  return fmt::format("{}\n{}  avg@{} of the score {:.3f} ({:.3f} - {:.3f})\n", e.model,
                     curve_text(e.curve), e.summary.samples, e.mean_score.mean, e.mean_score.low_95,
                     e.mean_score.high_95);
}

}  // namespace

std::string evaluation_report_json(const EvaluationReport& report) {
  ordered_json line{{"model", report.policy.model}, {"dataset", report.dataset}};
  line.update(policy_json(report.policy));
  line["differences"] = report.differences;
  line["training_rows"] = report.training_rows;
  if (report.baseline) {
    line["baseline"] = {{"model", report.baseline->model}};
    line["baseline"].update(policy_json(*report.baseline));
  }
  if (report.comparison) line["comparison"] = comparison_json(*report.comparison);
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string evaluation_report_text(const EvaluationReport& report) {
  std::string text = evaluation_line(report.policy.summary) + "\n" + policy_text(report.policy);
  if (report.baseline) text += "baseline " + policy_text(*report.baseline);
  if (report.comparison) text += comparison_text(*report.comparison);
  for (const std::string& difference : report.differences)
    text += "unlike the training: " + difference + "\n";
  if (report.training_rows > 0)
    text += fmt::format("{} of the held-out rows were trained on\n", report.training_rows);
  return text;
}

}  // namespace rollcall
