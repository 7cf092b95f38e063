// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cmath>

#include "trainer/chart.h"
#include "trainer/preflight.h"
#include "trainer/report_style.h"

namespace rollcall {
namespace {

std::string cell(const std::string& text) { return "<td>" + escape_html(text) + "</td>"; }

std::string table_of(const std::vector<std::string>& heads,
                     const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<div class=\"card wide\"><table><tr>";
  for (const std::string& head : heads) html += "<th>" + escape_html(head) + "</th>";
  html += "</tr>";
  for (const auto& row : rows) {
    html += "<tr>";
    for (const std::string& text : row) html += cell(text);
    html += "</tr>";
  }
  return html + "</table></div>";
}

std::string verdict_section(const Preflight& p, const PreflightJudgement& j) {
  const char* const names[] = {"go", "go, with these settings", "no"};
  const char* const colors[] = {"good", "warn", "bad"};
  const auto which = static_cast<std::size_t>(j.verdict);
  std::string html = fmt::format(
      "<div class=\"eyebrow\">Before the run</div><div class=\"top\"><h1>{}</h1><span class=\"pill "
      "{}\">{}</span></div><p></p>",
      escape_html(p.name), colors[which], names[which]);
  for (const std::string& reason : j.reasons) html += "<p>" + escape_html(reason) + ".</p>";
  if (j.verdict != PreflightVerdict::kNo && !j.advice.settings.empty()) {
    html += "<div class=\"card\"><pre>";
    for (const std::string& setting : j.advice.settings)
      html += "--set " + escape_html(setting) + "\n";
    html += "</pre></div>";
  }
  for (const std::string& warning : j.warnings)
    html += "<div class=\"notice\">" + escape_html(warning) + ".</div>";
  return html;
}

ChartPoint point(std::int64_t x, const Estimate& e) {
  return {static_cast<double>(x), e.mean, e.low_95, e.high_95};
}

std::string tasks_section(const Learnability& l) {
  ChartSeries pass{.name = "pass@k", .color = "c1", .points = {}, .markers = true};
  ChartSeries best{.name = "best score of k", .color = "c2", .points = {}, .markers = true};
  for (const CurvePoint& p : l.curve) {
    pass.points.push_back(point(p.k, p.pass));
    best.points.push_back(point(p.k, p.best));
  }
  ChartSeries groups{.name = "groups with a signal", .color = "c4", .points = {}, .markers = true};
  for (const GroupSignal& g : l.groups) groups.points.push_back(point(g.group_size, g.share));
  ChartSeries share{.name = "tasks", .color = "c3", .points = {}};
  for (std::size_t i = 0; i < l.histogram.size(); ++i)
    share.points.push_back({static_cast<double>(i), static_cast<double>(l.histogram[i].tasks) /
                                                        static_cast<double>(l.tasks)});
  return fmt::format(
             "<h2>What the tasks can teach</h2><p class=\"lead\">{} rollouts of {} tasks, {} each; "
             "{} passed. Solved never: {:.0f} % of the tasks, sometimes: {:.0f} %, always: {:.0f} "
             "%. "
             "Bars are 95 % intervals over tasks; groups of more than {} are extrapolated.</p><div "
             "class=\"grid\">",
             l.rollouts, l.tasks, l.samples, l.passed, 100 * l.share_zero, 100 * l.share_between,
             100 * l.share_one, l.samples) +
         line_chart({"One of k tries passes", "k", ChartUnit::kPercent, {pass}}) +
         line_chart({"Best score of k tries", "k", ChartUnit::kNumber, {best}}) +
         line_chart({"Groups whose rewards differ", "group size", ChartUnit::kPercent, {groups}}) +
         stacked_chart({"Tasks by observed pass rate",
                        "0: never, 1 to 10: by tenths, 11: always",
                        ChartUnit::kPercent,
                        {share}}) +
         "</div>";
}

std::vector<std::string> forecast_row(const std::string& name, const Forecast& f) {
  return {name,
          count_text(f.rollouts_per_step),
          count_text(f.signal_per_step),
          format_value(f.informative_share, ChartUnit::kPercent),
          count_text(f.rollouts_to_first_signal.mean),
          duration_text(f.hours_to_first_signal),
          count_text(f.rollouts_of_run),
          duration_text(f.hours_of_run)};
}

std::string plan_section(const Preflight& p, const PreflightJudgement& j) {
  std::vector<std::vector<std::string>> rows{forecast_row("as planned", j.as_planned)};
  if (!j.advice.settings.empty()) rows.push_back(forecast_row("as advised", j.as_advised));
  return fmt::format(
             "<h2>What it will take</h2><p class=\"lead\">{} rollouts a second with {} workers "
             "here, "
             "{} with the {} of the run; {} steps. Updates of the learner come on top.</p>",
             count_text(static_cast<double>(p.planned) / p.seconds), p.workers,
             count_text(p.rollouts_per_second()), p.run.workers, p.run.steps) +
         table_of({"", "rollouts a step", "signal mass", "groups with a signal",
                   "rollouts to a first gradient", "time", "rollouts of the run", "time"},
                  rows);
}

std::string endpoints_section(const Preflight& p) {
  std::vector<std::vector<std::string>> rows;
  for (const EndpointUse& e : p.endpoints)
    rows.push_back({e.name, std::to_string(e.calls), std::to_string(e.errors),
                    std::to_string(e.retries), format_value(e.seconds_p50, ChartUnit::kSeconds),
                    format_value(e.seconds_p95, ChartUnit::kSeconds)});
  std::string html = fmt::format(
      "<h2>Tools and grader</h2><p class=\"lead\">As the rollouts met them, {} in flight at once "
      "({} in the run).</p>",
      p.in_flight, p.run.in_flight());
  html += table_of({"", "calls", "errors shown", "retries", "P50", "P95"}, rows);
  for (const auto& [reason, count] : p.left_out)
    html += fmt::format("<p>{} rollouts were left out: {}.</p>", count, escape_html(reason));
  return html;
}

std::string grader_section(const Preflight& p) {
  std::vector<std::vector<std::string>> rows;
  for (const Canary& c : p.canaries)
    rows.push_back(
        {c.name, std::to_string(c.graded), std::to_string(c.passed), std::to_string(c.faults)});
  const RepeatedGrading& r = p.regrading;
  return "<h2>Is the grader worth learning from?</h2><p class=\"lead\">Answers that deserve no "
         "pass: "
         "nothing, a constant, the prompt, an answer to another task; and rollouts of "
         "data.canaries, if there are any.</p>" +
         table_of({"answer", "graded", "passed", "faults"}, rows) +
         fmt::format(
             "<p></p><p>{} transcripts were graded {} times each again: {} got several "
             "scores; two verdicts on one differ with a chance of {:.0f} %.</p>",
             r.transcripts, r.times, r.scores_differ, 100 * r.disagreement);
}

std::string disk_section(const DiskNeed& d) {
  const auto gigabytes = [](double bytes) { return fmt::format("{:.2f} GB", bytes / 1e9); };
  return "<h2>Disk</h2>" +
         table_of(
             {"journal", "checkpoints kept", "export", "free", "seconds to write a checkpoint"},
             {{gigabytes(d.journal), gigabytes(d.checkpoints), gigabytes(d.exported),
               gigabytes(d.free), fmt::format("{:.1f}", d.checkpoint_seconds)}});
}

}  // namespace

std::string preflight_page(const Preflight& p, const PreflightJudgement& j) {
  std::string html = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">";
  html +=
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Preflight "
      "of ";
  html += escape_html(p.name) + " – Rollcall</title><style>" + kReportStyle + "</style></head>";
  html += "<body><main>" + verdict_section(p, j) + tasks_section(p.learnability);
  html += plan_section(p, j) + endpoints_section(p) + grader_section(p) + disk_section(p.disk);
  return html +
         "<footer>Made by rollcall preflight; the numbers are in preflight.json.</footer></main>"
         "</body></html>\n";
}

}  // namespace rollcall
