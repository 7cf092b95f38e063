// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "trainer/regrade_summary.h"

namespace rollcall {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const Interval& i) {
  return {{"mean", i.mean}, {"low_95", i.low}, {"high_95", i.high}, {"tasks", i.tasks}};
}

Json json_of(const StoredVerdict& v) {
  if (!v.graded()) return {{"fault", to_string(v.fault)}, {"detail", v.detail}};
  return {{"score", v.score},
          {"reward", v.reward},
          {"passed", v.passed},
          {"explanation", v.explanation}};
}

Json json_of(const Regraded& r) {
  const Assignment& a = r.assignment;
  return {{"row", r.row},
          {"trace_id", r.trace_id},
          {"split", to_string(a.split)},
          {"step", a.step},
          {"group", a.group},
          {"task_row", a.task_row},
          {"change", to_string(change_of(r))},
          {"before", json_of(r.before)},
          {"after", json_of(r.after)}};
}

Json json_of(const StepRegrade& s) {
  return {{"step", s.step},
          {"rollouts", s.rollouts},
          {"pass_before", s.pass_before},
          {"pass_after", s.pass_after},
          {"groups", s.groups},
          {"groups_signal_before", s.signal_before},
          {"groups_signal_after", s.signal_after},
          {"groups_signal_changed", s.signal_changed},
          {"advantage_signs_changed", s.signs_changed ? Json(*s.signs_changed) : Json(nullptr)}};
}

// A grader's words on one line of a terminal.
std::string one_line(const std::string& text) {
  std::string line;
  for (const char c : text) {
    const bool control = static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    line += control ? ' ' : c;
    if (line.size() == 100) return line + "...";
  }
  return line;
}

std::string verdict_text(const StoredVerdict& v) {
  return v.graded() ? fmt::format("{:g}", v.score) : std::string(to_string(v.fault));
}

std::string points(double share) { return fmt::format("{:+.1f}", 100 * share); }

std::string gain_text(const GainRegrade& g) {
  const auto text = [](const Interval& i) {
    return fmt::format("{} points ({} to {})", points(i.mean), points(i.low), points(i.high));
  };
  if (g.before.mean == g.after.mean && g.before.low == g.after.low)
    return fmt::format("the gain from step {} to step {} stays {}\n", g.first_step, g.last_step,
                       text(g.before));
  return fmt::format("conclusion changes: the gain from step {} to step {}, {}, becomes {}\n",
                     g.first_step, g.last_step, text(g.before), text(g.after));
}

std::string step_text(const StepRegrade& s) {
  return fmt::format(
      "step {:<5} pass@1 {:.1f} -> {:.1f} %  signal {} -> {} of {} groups{}\n", s.step,
      100 * s.pass_before, 100 * s.pass_after, s.signal_before, s.signal_after, s.groups,
      s.signs_changed ? fmt::format("  {} advantages change sign", *s.signs_changed) : "");
}

}  // namespace

std::string regrade_json(const RegradeSummary& summary) {
  Json counts = Json::object(), steps = Json::array(), evaluations = Json::array();
  for (std::size_t i = 0; i < kGradeChanges; ++i)
    counts[to_string(static_cast<GradeChange>(i))] = summary.changes[i];
  for (const StepRegrade& step : summary.steps) steps.push_back(json_of(step));
  for (const EvalRegrade& e : summary.evaluations)
    evaluations.push_back(
        {{"step", e.step}, {"before", json_of(e.before)}, {"after", json_of(e.after)}});
  Json gain;
  if (const auto& g = summary.gain)
    gain = {{"first_step", g->first_step},
            {"last_step", g->last_step},
            {"before", json_of(g->before)},
            {"after", json_of(g->after)}};
  Json changed = Json::array();
  for (const Regraded& r : summary.most_changed) changed.push_back(json_of(r));
  return Json{{"graded_again", summary.asked}, {"counts", std::move(counts)},
              {"steps", std::move(steps)},     {"evaluations", std::move(evaluations)},
              {"gain", std::move(gain)},       {"most_changed", std::move(changed)}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string regrade_text(const RegradeSummary& summary) {
  std::string text = fmt::format("{} rollouts were graded again\n", summary.asked);
  for (std::size_t i = 0; i < kGradeChanges; ++i)
    if (summary.changes[i] > 0)
      text +=
          fmt::format("  {:<14} {}\n", to_string(static_cast<GradeChange>(i)), summary.changes[i]);
  for (const StepRegrade& step : summary.steps)
    if (step.pass_before != step.pass_after || step.signal_changed > 0 ||
        step.signs_changed.value_or(0) > 0)
      text += step_text(step);
  for (const EvalRegrade& e : summary.evaluations)
    text += fmt::format("held-out  step {:<5} pass@1 {:.1f} -> {:.1f} %\n", e.step,
                        100 * e.before.mean, 100 * e.after.mean);
  if (summary.gain) text += gain_text(*summary.gain);
  for (const Regraded& r : summary.most_changed)
    text += fmt::format("row {:<6} {}  task row {}  {}  score {} -> {}  {}\n", r.row,
                        one_line(r.trace_id), r.assignment.task_row, to_string(change_of(r)),
                        verdict_text(r.before), verdict_text(r.after),
                        one_line(r.after.graded() ? r.after.explanation : r.after.detail));
  return text;
}

}  // namespace rollcall
