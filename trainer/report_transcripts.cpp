// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "trainer/journal.h"
#include "trainer/report_sections.h"

namespace rollcall {
namespace {

constexpr std::size_t kPairs = 4;
constexpr std::size_t kMostBytes = 6000;  // of one text; transcripts are for reading

struct TranscriptPair {
  const RolloutFacts* before = nullptr;
  const RolloutFacts* after = nullptr;
};

// The rollouts of a task in one evaluation, those that show most first: `passed` as wanted, then
// with tool calls, then in journal order.
const RolloutFacts* pick(const RunFacts& run, std::int64_t step, std::int64_t task, bool passed) {
  const auto rank = [&](const RolloutFacts& r) {
    return std::tuple(r.passed == passed, r.tool_calls > 0);
  };
  const RolloutFacts* best = nullptr;
  for (const RolloutFacts& rollout : run.valid) {
    if (rollout.assignment.step != step || rollout.assignment.task_row != task || !rollout.graded())
      continue;
    if (best == nullptr || rank(rollout) > rank(*best)) best = &rollout;
  }
  return best;
}

// Tasks whose pass rate rose most come first: a failure before, a success after, where there is
// one.
std::vector<TranscriptPair> pairs_of(const RunFacts& run, const EvalFacts& first,
                                     const EvalFacts& last) {
  std::vector<std::pair<double, std::int64_t>> tasks;  // -rise, task
  for (const auto& [task, rate] : last.pass_of_task) {
    const auto before = first.pass_of_task.find(task);
    if (before != first.pass_of_task.end()) tasks.emplace_back(before->second - rate, task);
  }
  std::sort(tasks.begin(), tasks.end());
  std::vector<TranscriptPair> pairs;
  for (const auto& [rise, task] : tasks) {
    if (pairs.size() == kPairs) break;
    pairs.push_back({pick(run, first.step, task, false), pick(run, last.step, task, true)});
  }
  return pairs;
}

std::string shortened(const std::string& text) {
  if (text.size() <= kMostBytes) return escape_html(text);
  return escape_html(text.substr(0, kMostBytes)) +
         fmt::format("… ({} more bytes)", text.size() - kMostBytes);
}

std::string tool_turn(const ToolEvent& event) {
  return fmt::format(
      "<div class=\"turn{}\"><div class=\"who\">turn {} · {} · {}{}</div>"
      "<pre><span class=\"call\">{}</span>({})</pre><pre class=\"out\">{}</pre></div>",
      event.is_error ? " error" : "", event.turn + 1, event.is_error ? "error" : "tool call",
      format_value(event.latency_s, ChartUnit::kSeconds),
      event.retries > 0 ? fmt::format(" · {} retries", event.retries) : "", escape_html(event.name),
      shortened(event.arguments), shortened(event.output));
}

// Sub-rewards, gates and flags; "" where there are none.
std::string grade_parts(const Grade& grade) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : " · ") + part; };
  for (const auto& [name, value] : grade.sub_rewards)
    add(escape_html(name) + " " + format_value(value, ChartUnit::kNumber));
  for (const auto& [name, open] : grade.gates)
    add("gate " + escape_html(name) + (open ? " open" : " closed"));
  for (const std::string& flag : grade.flags) add("flag " + escape_html(flag));
  return text.empty() ? "" : "<div class=\"facts\">" + text + "</div>";
}

}  // namespace

std::string transcript_card(const RolloutFacts& facts, const std::string& title) {
  const Trajectory t = JournalReader(facts.journal).read_texts(facts.row);
  std::string html = fmt::format(
      "<div class=\"card side\"><h3>{} <span class=\"pill {}\">{}</span></h3><div "
      "class=\"facts\">score {} · {} "
      "turns · {} tool calls · {} tokens · {} · <code>{}</code></div>",
      title, facts.passed ? "good" : "bad", facts.passed ? "passed" : "failed",
      format_value(t.grade.score, ChartUnit::kNumber), t.turns, t.tool_events.size(), facts.tokens,
      format_value(t.wall_time_s, ChartUnit::kSeconds), escape_html(t.trace_id));
  html += grade_parts(t.grade);
  for (const ToolEvent& event : t.tool_events) html += tool_turn(event);
  html += "<div class=\"turn\"><div class=\"who\">final answer</div><pre>" +
          (t.final_text.empty() ? "<span class=\"soft\">(none)</span>" : shortened(t.final_text)) +
          "</pre></div>";
  if (!t.grade.explanation.empty()) {
    html += "<div class=\"turn\"><div class=\"who\">grader</div><pre>" +
            shortened(t.grade.explanation) + "</pre></div>";
  }
  return html + "</div>";
}

std::string transcripts_section(const RunFacts& run, const std::vector<EvalFacts>& evaluations) {
  if (evaluations.size() < 2) return "";
  const EvalFacts &first = evaluations.front(), &last = evaluations.back();
  std::string tabs, pairs;
  for (const TranscriptPair& pair : pairs_of(run, first, last)) {
    tabs += fmt::format("<button type=\"button\">held-out row {}</button>",
                        pair.before->assignment.task_row);
    pairs += "<div class=\"pair\">" +
             transcript_card(*pair.before, fmt::format("Before, step {}", first.step)) +
             transcript_card(*pair.after, fmt::format("After, step {}", last.step)) + "</div>";
  }
  return "<h2>Before and after</h2><p class=\"lead\">The same held-out tasks in the first and in "
         "the last evaluation: "
         "those that gained most. Rows count from 0.</p><div class=\"tabs\">" +
         tabs + "</div>" + pairs;
}

}  // namespace rollcall
