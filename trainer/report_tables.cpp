// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "trainer/report_sections.h"

namespace rollcall {
namespace {

// One tool in one part of the run.
struct ToolUse {
  std::vector<double> latencies_s;
  double errors = 0, faults = 0, retries = 0;

  double calls() const { return static_cast<double>(latencies_s.size()); }
  double per_call(double count) const { return calls() > 0 ? count / calls() : 0; }
};

struct ToolRow {
  ToolUse whole, before, after;
};

void count(ToolUse& use, const CallFacts& call) {
  use.latencies_s.push_back(call.latency_s);
  use.errors += call.is_error ? 1 : 0;
  use.faults += call.is_fault ? 1 : 0;
  use.retries += call.retries;
}

std::map<std::string, ToolRow> tools_of(const RunFacts& run, const Tenths& tenths) {
  std::map<std::string, ToolRow> tools;
  for (const CallFacts& call : run.calls) {
    ToolRow& tool = tools[call.tool];
    count(tool.whole, call);
    if (call.step < tenths.first_end) count(tool.before, call);
    if (call.step >= tenths.last_begin) count(tool.after, call);
  }
  return tools;
}

std::string was_is(double was, double is, ChartUnit unit) {
  return fmt::format("<td><span class=\"was\">{}</span>{}</td>", format_value(was, unit),
                     format_value(is, unit));
}

std::string was_is_percentile(const ToolRow& tool, double share) {
  return was_is(percentile(tool.before.latencies_s, share),
                percentile(tool.after.latencies_s, share), ChartUnit::kSeconds);
}

std::string number(double value) {
  return "<td>" + format_value(value, ChartUnit::kNumber) + "</td>";
}

std::string tool_row(const std::string& name, const ToolRow& tool, double rollouts_before,
                     double rollouts_after) {
  const auto per = [](double count, double of) { return of > 0 ? count / of : 0; };
  const std::string shown =
      name.empty() ? "not a readable call" : "<code>" + escape_html(name) + "</code>";
  return "<tr><td>" + shown + "</td>" + number(tool.whole.calls()) +
         was_is(per(tool.before.calls(), rollouts_before), per(tool.after.calls(), rollouts_after),
                ChartUnit::kNumber) +
         was_is(tool.before.per_call(tool.before.errors), tool.after.per_call(tool.after.errors),
                ChartUnit::kPercent) +
         number(tool.whole.faults) + number(tool.whole.retries) + was_is_percentile(tool, 0.5) +
         was_is_percentile(tool, 0.95) + "</tr>";
}

std::string tool_table(const RunFacts& run, const Tenths& tenths) {
  double before = 0, after = 0;
  for (const RolloutFacts& rollout : run.train) {
    before += rollout.assignment.step < tenths.first_end ? 1 : 0;
    after += rollout.assignment.step >= tenths.last_begin ? 1 : 0;
  }
  std::string html =
      "<div class=\"card wide\"><table><tr><th>tool</th><th>calls</th><th>calls a rollout</th>"
      "<th>error share</th><th>server faults</th><th>retries</th><th>latency P50</th>"
      "<th>latency P95</th></tr>";
  for (const auto& [name, tool] : tools_of(run, tenths))
    html += tool_row(name, tool, before, after);
  return html + "</table></div>";
}

ChartSeries calls_series(const std::vector<StepFacts>& steps, const char* name, const char* color,
                         double StepFacts::*value) {
  ChartSeries series{.name = name, .color = color, .points = {}};
  for (const StepFacts& step : steps) {
    series.points.push_back({.x = static_cast<double>(step.step), .y = step.*value});
  }
  return series;
}

// Errors as a share of all calls of a step.
ChartSeries error_series(const RunFacts& run) {
  std::map<std::int64_t, std::pair<double, double>> steps;  // errors, calls
  for (const CallFacts& call : run.calls) {
    steps[call.step].first += call.is_error ? 1 : 0;
    ++steps[call.step].second;
  }
  ChartSeries series{.name = "calls answered with an error", .color = "c5", .points = {}};
  for (const auto& [step, counts] : steps) {
    series.points.push_back({.x = static_cast<double>(step), .y = counts.first / counts.second});
  }
  return series;
}

std::string latency_row(const char* name, const std::vector<double>& before,
                        const std::vector<double>& after) {
  std::string html = fmt::format("<tr><td>{}</td>", name);
  for (const double share : {0.5, 0.9, 0.95, 0.99, 1.0}) {
    html += was_is(percentile(before, share), percentile(after, share), ChartUnit::kSeconds);
  }
  return html + "</tr>";
}

std::string latency_table(const RunFacts& run, const Tenths& tenths) {
  std::vector<double> wall[2], generate[2], tools[2], grade[2];
  for (const RolloutFacts& rollout : run.train) {
    const std::int64_t step = rollout.assignment.step;
    for (const int part : {0, 1}) {
      if (!rollout.graded() || (part == 0 ? step >= tenths.first_end : step < tenths.last_begin))
        continue;
      wall[part].push_back(rollout.wall_time_s);
      generate[part].push_back(rollout.generate_time_s);
      grade[part].push_back(rollout.grade_latency_s);
      tools[part].push_back(
          std::max(0.0, rollout.wall_time_s - rollout.generate_time_s - rollout.grade_latency_s));
    }
  }
  return "<div class=\"card wide\"><table><tr><th>rollout "
         "latency</th><th>P50</th><th>P90</th><th>P95</th>"
         "<th>P99</th><th>largest</th></tr>" +
         latency_row("whole rollout", wall[0], wall[1]) +
         latency_row("waiting for the model", generate[0], generate[1]) +
         latency_row("waiting for tools", tools[0], tools[1]) +
         latency_row("waiting for the grader", grade[0], grade[1]) + "</table></div>";
}

struct Reason {
  double rollouts = 0;
  std::string example;
};

std::string reason_table(const char* title, const char* example,
                         const std::map<std::string, Reason>& reasons, double of) {
  std::string html = fmt::format(
      "<div class=\"card wide\"><table><tr><th>{}</th><th>rollouts</th>"
      "<th>share</th>{}</tr>",
      title, *example != '\0' ? fmt::format("<th class=\"text\">{}</th>", example) : "");
  for (const auto& [name, reason] : reasons) {
    html += "<tr><td>" + escape_html(name) + "</td>" + number(reason.rollouts) + "<td>" +
            format_value(reason.rollouts / of, ChartUnit::kPercent) + "</td>";
    if (*example != '\0') html += "<td class=\"text\">" + escape_html(reason.example) + "</td>";
    html += "</tr>";
  }
  return html + "</table></div>";
}

std::string words(const char* name) {
  std::string text = name;
  std::replace(text.begin(), text.end(), '_', ' ');
  return text;
}

}  // namespace

std::string tools_section(const RunFacts& run, const std::vector<StepFacts>& steps) {
  if (run.calls.empty()) return "";
  const Tenths tenths = tenths_of(steps);
  const Chart calls{.title = "Tool calls a rollout",
                    .series = {calls_series(steps, "P95", "c3", &StepFacts::tool_calls_p95),
                               calls_series(steps, "P50", "c1", &StepFacts::tool_calls_p50)}};
  const Chart errors{
      .title = "Tool errors", .unit = ChartUnit::kPercent, .series = {error_series(run)}};
  return "<h2>Tools</h2><p class=\"lead\">Before → after: the first and the last tenth of the "
         "steps.</p>"
         "<div class=\"grid\">" +
         line_chart(calls) + line_chart(errors) + "</div><p></p>" + tool_table(run, tenths) +
         "<p></p>" + latency_table(run, tenths);
}

std::string faults_section(const RunFacts& run) {
  if (run.train.empty()) return "";
  std::map<std::string, Reason> faults, ends;
  for (const RolloutFacts& rollout : run.train) {
    Reason& reason = rollout.graded() ? ends[words(to_string(rollout.end))]
                                      : faults[words(to_string(rollout.fault))];
    ++reason.rollouts;
    if (reason.example.empty()) reason.example = rollout.fault_detail;
  }
  const auto all = static_cast<double>(run.train.size());
  std::string html =
      "<h2>How rollouts ended</h2><p class=\"lead\">A fault is the infrastructure's; masked are "
      "those that the grader, a flag or a limit leaves out. Neither is a reward of "
      "0.</p><div class=\"grid\">";
  html += reason_table("end", "", ends, all);
  if (faults.empty()) {
    return html +
           "<div class=\"card\"><b>No faults</b><p class=\"soft\">Every training rollout was "
           "graded.</p></div></div>";
  }
  return html + reason_table("fault", "for example", faults, all) + "</div>";
}

}  // namespace rollcall
