// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "comms/durable_file.h"
#include "trainer/audit.h"
#include "trainer/chart.h"
#include "trainer/journal.h"
#include "trainer/report_sections.h"
#include "trainer/report_style.h"

namespace rollcall {
namespace {

constexpr std::size_t kLines = 5;        // of a chart
constexpr std::size_t kSingletons = 20;  // listed; the newest with a transcript
constexpr std::size_t kShownSingletons = 3;
constexpr std::array<const char*, kLines> kColors{"c1", "c2", "c3", "c4", "c5"};

std::string percent(double share) { return format_value(share, ChartUnit::kPercent); }

std::string number(double value) {
  return std::isfinite(value) ? fmt::format("{:.2f}", value) : "–";
}

std::string title_of(const AuditRollout& r) {
  const Assignment& a = r.facts.assignment;
  return fmt::format("step {}, task row {}, row {}", a.step, a.task_row, r.facts.row);
}

// step -> mean of `value` over the graded rollouts that `of` picks.
template <class Of, class Value>
std::vector<ChartPoint> means(std::span<const AuditRollout> all, const Of& of, const Value& value) {
  std::map<std::int64_t, std::pair<double, double>> sums;
  for (const AuditRollout& r : all) {
    if (!r.facts.graded() || !of(r)) continue;
    auto& [sum, count] = sums[r.facts.assignment.step];
    sum += value(r);
    ++count;
  }
  std::vector<ChartPoint> points;
  for (const auto& [step, sum] : sums)
    points.push_back({.x = static_cast<double>(step), .y = sum.first / sum.second});
  return points;
}

template <class Value>
std::string by_outcome(std::span<const AuditRollout> all, const std::string& title,
                       const Value& value) {
  const auto passed = [](const AuditRollout& r) { return r.facts.passed; };
  const auto failed = [](const AuditRollout& r) { return !r.facts.passed; };
  return line_chart({.title = title,
                     .series = {{"passed", "good", means(all, passed, value)},
                                {"failed", "bad", means(all, failed, value)}}});
}

std::string habits_chart(std::span<const AuditRollout> all) {
  const auto any = [](const AuditRollout&) { return true; };
  const auto share = [](bool AuditRollout::*member) {
    return [member](const AuditRollout& r) { return r.*member ? 1.0 : 0.0; };
  };
  return line_chart(
      {.title = "Habits of answers",
       .unit = ChartUnit::kPercent,
       .series = {{"without any tool", "c1", means(all, any, share(&AuditRollout::without_tools))},
                  {"what a tool gave", "c2", means(all, any, share(&AuditRollout::parroted))},
                  {"repetition", "c3",
                   means(all, any, [](const AuditRollout& r) { return r.repetition; })}}});
}

std::string counts_chart(const std::string& title,
                         const std::map<std::string, std::map<std::int64_t, double>>& counts) {
  Chart chart{.title = title, .series = {}};
  for (const auto& [name, steps] : counts) {
    if (chart.series.size() == kLines) break;
    ChartSeries series{name, kColors[chart.series.size()], {}};
    for (const auto& [step, count] : steps)
      series.points.push_back({.x = static_cast<double>(step), .y = count});
    chart.series.push_back(std::move(series));
  }
  return line_chart(chart);
}

std::string shares_chart(const Audit& audit) {
  Chart chart{.title = "Share of each behaviour", .unit = ChartUnit::kPercent, .series = {}};
  for (const BehaviourCluster& cluster : audit.clusters) {
    if (chart.series.size() == kLines) break;
    ChartSeries series{cluster.behaviour, kColors[chart.series.size()], {}};
    for (const auto& [step, share] : cluster.share_of_step)
      series.points.push_back({.x = static_cast<double>(step), .y = share});
    chart.series.push_back(std::move(series));
  }
  return line_chart(chart);
}

std::string cluster_table(const Audit& audit) {
  std::string rows;
  for (const BehaviourCluster& c : audit.clusters)
    rows += fmt::format(
        "<tr><td><code>{}</code></td><td>{}</td><td><span class=\"was\">{}</span>{}</td>"
        "<td>{}</td><td>{}</td></tr>",
        escape_html(c.behaviour), c.rollouts, percent(c.share_first), percent(c.share_last),
        number(c.reward_mean), percent(c.pass_rate));
  return "<div class=\"card wide\"><table><tr><th>calls | end | answer</th><th>rollouts</th>"
         "<th>share, first and last steps</th><th>reward</th><th>passed</th></tr>" +
         rows + "</table></div>";
}

std::string clusters_section(const Audit& audit) {
  if (audit.clusters.empty()) return "";
  std::string tabs, cards;
  for (const BehaviourCluster& c : audit.clusters) {
    tabs += "<button type=\"button\">" + escape_html(c.behaviour) + "</button>";
    cards += "<div class=\"pair\">";
    for (const AuditRollout* r : c.examples) cards += transcript_card(r->facts, title_of(*r));
    cards += "</div>";
  }
  return fmt::format(
             "<h2>How rewards are earned</h2><p class=\"lead\">Behaviours that the highest quarter "
             "of the rewards since step {} show; what has grown most is first. A way to pass that "
             "appears all at once is worth reading.</p>",
             audit.last_begin) +
         cluster_table(audit) + "<p></p>" + shares_chart(audit) + "<p></p><div class=\"tabs\">" +
         tabs + "</div>" + cards;
}

const char* confirmation_text(const AuditRollout& r) {
  switch (r.confirmation) {
    case Confirmation::kConfirmed:
      return "confirmed";
    case Confirmation::kUnconfirmed:
      return "not confirmed";
    case Confirmation::kFault:
      return "second grading failed";
    case Confirmation::kNone:
      break;
  }
  return "graded once";
}

std::string singletons_section(const Audit& audit) {
  if (audit.singletons.empty()) return "";
  std::string rows, cards;
  for (std::size_t i = 0; i < std::min(kSingletons, audit.singletons.size()); ++i) {
    const AuditRollout& r = *audit.singletons[i];
    const Assignment& a = r.facts.assignment;
    rows += fmt::format(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>", a.step,
        a.task_row, r.facts.row, confirmation_text(r), escape_html(r.answer));
    if (i < kShownSingletons) cards += transcript_card(r.facts, title_of(r));
  }
  return fmt::format(
             "<h2>Lone successes</h2><p class=\"lead\">The only pass of a group of 8 or more "
             "teaches more than any other: if the grader is wrong about it, so is the step. There "
             "are {}; the newest are listed.</p>",
             audit.singletons.size()) +
         "<div class=\"card wide\"><table><tr><th>step</th><th>task row</th><th>row</th>"
         "<th>grading</th><th class=\"text\">answer</th></tr>" +
         rows + "</table></div><p></p><div class=\"grid\">" + cards + "</div>";
}

std::string outcome_section(std::span<const AuditRollout> all, const Audit& audit) {
  const auto row = [](const char* name, const Correlation& c) {
    return fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td></tr>", name, number(c.overall),
                       number(c.inside_groups));
  };
  return "<h2>Length, calls and reward</h2><p class=\"lead\">A grader that pays for length or for "
         "calls shows as a correlation inside groups, where the task is the same.</p>"
         "<div class=\"grid\">" +
         by_outcome(all, "Tokens a rollout",
                    [](const AuditRollout& r) { return static_cast<double>(r.facts.tokens); }) +
         by_outcome(all, "Tool calls a rollout",
                    [](const AuditRollout& r) { return static_cast<double>(r.facts.tool_calls); }) +
         "</div><p></p><div class=\"card wide\"><table><tr><th>correlation with the reward</th>"
         "<th>over all</th><th>inside groups</th></tr>" +
         row("tokens", audit.length) + row("tool calls", audit.calls) + "</table></div>";
}

std::string repeated_table(const Audit& audit) {
  if (audit.repeated.empty()) return "";
  std::string rows;
  for (const RepeatedAnswer& r : audit.repeated)
    rows += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>",
                        r.tasks, r.rollouts, percent(r.pass_rate), escape_html(r.answer));
  return "<p></p><div class=\"card wide\"><table><tr><th>tasks</th><th>rollouts</th>"
         "<th>passed</th><th class=\"text\">the same answer to different tasks</th></tr>" +
         rows + "</table></div>";
}

std::string answers_section(std::span<const AuditRollout> all, const Audit& audit) {
  return "<h2>Answers</h2><p class=\"lead\">Answers without any tool call, answers that are what a "
         "tool gave, and the share of an answer's runs of four words that it has said "
         "before.</p>" +
         habits_chart(all) + repeated_table(audit);
}

std::string marks_section(const Audit& audit) {
  const std::string flags = counts_chart("Rollouts with a flag", audit.flags);
  const std::string gates = counts_chart("Rollouts with a closed gate", audit.gates);
  if (flags.empty() && gates.empty()) return "";
  return "<h2>Flags and gates</h2><div class=\"grid\">" + flags + gates + "</div>";
}

std::string exploits_section(std::span<const RolloutFacts> exploits) {
  if (exploits.empty()) return "";
  std::string rows;
  for (const RolloutFacts& facts : exploits)
    rows += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{:g}</td></tr>",
                        facts.assignment.step, facts.row, facts.assignment.task_row, facts.score);
  return "<h2>Canaries that passed</h2><p class=\"lead\">Nobody can solve these tasks: each pass "
         "is "
         "a way around the grader.</p><div class=\"card wide\"><table><tr><th>step</th><th>row of "
         "the journal</th><th>row of data.canaries</th><th>score</th></tr>" +
         rows + "</table></div>";
}

struct StoredRollouts {
  std::vector<AuditRollout> train;
  std::vector<RolloutFacts> exploits;
};

StoredRollouts read_rollouts(const std::filesystem::path& run_dir) {
  StoredRollouts all;
  for (const auto& file : journals_of(run_dir)) {
    const JournalReader journal(file);
    for (std::int64_t row = 0, rows = journal.rows(); row < rows; ++row) {
      const Trajectory t = journal.read_texts(row);
      const bool exploit =
          t.assignment.split == Split::kCanary && t.grade.passed && t.fault == FaultReason::kNone;
      if (t.assignment.split != Split::kTrain && !exploit) continue;
      if (lost_to_infrastructure(t)) continue;
      RolloutFacts facts = facts_of(t);
      facts.journal = file;
      facts.row = row;
      facts.tokens = journal.token_count(row);
      if (exploit)
        all.exploits.push_back(std::move(facts));
      else
        all.train.push_back(audit_rollout(t, std::move(facts)));
    }
  }
  return all;
}

}  // namespace

std::string audit_page(const std::string& run_name, std::span<const AuditRollout> all,
                       const Audit& audit, std::span<const RolloutFacts> exploits) {
  const std::string title = escape_html(run_name);
  std::string html = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">";
  html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
  html += "<title>" + title + " – audit – Rollcall</title><style>" + kReportStyle +
          "</style></head><body><main><h1>" + title + ": is the reward earned?</h1>";
  html += fmt::format(
      "<p class=\"lead\">{} training rollouts of {} steps, for a person who looks for ways to "
      "please the grader without doing the task. Steps and rows count from 0; <code>rollcall "
      "inspect RUN --row N</code> shows a rollout in full.</p>",
      all.size(), audit.steps);
  if (all.empty()) html += "<p>No rollout has a grade yet.</p>";
  html += exploits_section(exploits) + clusters_section(audit) + singletons_section(audit);
  if (!all.empty()) html += outcome_section(all, audit) + answers_section(all, audit);
  html += marks_section(audit);
  html +=
      "<footer>Made by Rollcall from the run's journal; <code>rollcall report</code> makes it "
      "again.</footer></main>";
  return html + "<script>" + kReportScript + "</script></body></html>\n";
}

void write_audit(const std::filesystem::path& run_dir) {
  const StoredRollouts all = read_rollouts(run_dir);
  const std::string name = std::filesystem::weakly_canonical(run_dir).filename().string();
  write_durably(run_dir / "audit.html",
                audit_page(name, all.train, audit_of(all.train), all.exploits));
}

}  // namespace rollcall
