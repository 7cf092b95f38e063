// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>

#include "trainer/chart.h"
#include "trainer/estimate_json.h"
#include "trainer/preflight.h"

namespace rollcall {
namespace {

const char* headline(PreflightVerdict verdict) {
  return verdict == PreflightVerdict::kGo       ? "go"
         : verdict == PreflightVerdict::kGoWith ? "go, with these settings"
                                                : "no";
}

std::string signal_text(const Learnability& l) {
  std::string text = "groups with a signal, by size:";
  for (const GroupSignal& g : l.groups)
    text += fmt::format("  {}: {:.0f} %{}", g.group_size, 100 * g.share.mean,
                        g.extrapolated ? "*" : "");
  return text + "   (* more rollouts than were sampled)\n";
}

std::string forecast_text(const char* what, const Forecast& f) {
  return fmt::format(
      "{}: {} rollouts a step with a signal mass of {}; a first gradient after {} rollouts ({}); "
      "the "
      "run {} rollouts ({}, updates not counted)\n",
      what, count_text(f.rollouts_per_step), count_text(f.signal_per_step),
      count_text(f.rollouts_to_first_signal.mean), duration_text(f.hours_to_first_signal),
      count_text(f.rollouts_of_run), duration_text(f.hours_of_run));
}

std::string grader_text(const Preflight& p) {
  std::string text = "worthless answers that the grader passed:";
  for (const Canary& c : p.canaries)
    text += fmt::format("  {} {} of {}", c.name, c.passed, c.graded);
  return text + fmt::format("\ngraded again: {} of {} transcripts got several scores\n",
                            p.regrading.scores_differ, p.regrading.transcripts);
}

}  // namespace

std::string count_text(double value) {
  return std::isfinite(value) ? format_value(value, ChartUnit::kNumber) : "unknown";
}

std::string duration_text(double hours) {
  if (!std::isfinite(hours)) return "unknown";
  if (hours < 1.0 / 60) return fmt::format("{:.0f} s", 3600 * hours);
  if (hours < 1) return fmt::format("{:.0f} min", 60 * hours);
  return fmt::format("{:.1f} h", hours);
}

std::string preflight_text(const Preflight& p, const PreflightJudgement& j) {
  const Learnability& l = p.learnability;
  std::string text = curve_text(l.curve);
  text += fmt::format("tasks solved never {:.0f} %, sometimes {:.0f} %, always {:.0f} %\n",
                      100 * l.share_zero, 100 * l.share_between, 100 * l.share_one);
  text += signal_text(l) + forecast_text("as planned", j.as_planned);
  if (!j.advice.settings.empty()) text += forecast_text("as advised", j.as_advised);
  for (const EndpointUse& e : p.endpoints)
    text += fmt::format("{}: {} calls, {} errors, {} retries, P50 {:.3f} s, P95 {:.3f} s\n", e.name,
                        e.calls, e.errors, e.retries, e.seconds_p50, e.seconds_p95);
  text += grader_text(p);
  for (const std::string& warning : j.warnings) text += "warning: " + warning + "\n";
  text += fmt::format("verdict: {}\n", headline(j.verdict));
  for (const std::string& reason : j.reasons) text += "  " + reason + "\n";
  for (const std::string& setting : j.advice.settings)
    if (j.verdict != PreflightVerdict::kNo) text += "  --set " + setting + "\n";
  return text;
}

}  // namespace rollcall
