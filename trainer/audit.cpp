// SPDX-License-Identifier: Apache-2.0
#include "trainer/audit.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <tuple>

#include "trainer/metrics.h"

namespace rollcall {
namespace {

constexpr std::size_t kAnswerBytes = 200;
constexpr std::size_t kTelling = 20;  // bytes; what is shorter may be the same by chance
constexpr double kMostly = 0.8;
constexpr std::size_t kShort = 80;
constexpr std::size_t kWords = 4;
constexpr std::size_t kLargeGroup = 8;
constexpr std::int64_t kTasksOfRepeated = 3;
constexpr std::size_t kExamples = 3, kClusters = 12, kRepeated = 10;
constexpr double kTopShare = 0.75;

std::string normal(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isspace(byte) == 0) {
      out += static_cast<char>(byte < 0x80 ? std::tolower(byte) : byte);
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

// "get+ pay": names in order, runs of one name as one.
std::string calls_of(const Trajectory& t) {
  std::string text, last;
  for (const ToolEvent& event : t.tool_events) {
    const std::string name = event.name.empty() ? "(unreadable)" : event.name;
    if (name != last) {
      text += (text.empty() ? "" : " ") + name;
    } else if (text.back() != '+') {
      text += '+';
    }
    last = name;
  }
  return text.empty() ? "no tools" : text;
}

std::string shape_of(const std::string& answer) {
  if (answer.empty()) return "no answer";
  const auto parsed = nlohmann::json::parse(answer, nullptr, false);
  if (parsed.is_structured()) return "JSON";
  if (parsed.is_number()) return "number";
  return answer.size() <= kShort ? "short" : "long";
}

bool is_parroted(const std::string& answer, const Trajectory& t) {
  if (answer.size() < kTelling) return false;
  return std::ranges::any_of(t.tool_events, [&](const ToolEvent& event) {
    const std::string output = normal(event.output);
    const bool most =
        static_cast<double>(output.size()) >= kMostly * static_cast<double>(answer.size());
    return output.find(answer) != std::string::npos ||
           (most && answer.find(output) != std::string::npos);
  });
}

double repetition_of(const std::string& answer) {
  std::istringstream in(answer);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  if (words.size() < kWords) return 0;
  std::set<std::vector<std::string>> seen;
  double again = 0;
  const std::size_t runs = words.size() - kWords + 1;
  for (std::size_t i = 0; i < runs; ++i)
    again += seen.emplace(words.begin() + static_cast<std::ptrdiff_t>(i),
                          words.begin() + static_cast<std::ptrdiff_t>(i + kWords))
                     .second
                 ? 0
                 : 1;
  return again / static_cast<double>(runs);
}

using Rollouts = std::vector<const AuditRollout*>;
using Groups = std::map<std::int64_t, Rollouts>;

template <class Value>
Correlation correlation_of(const Groups& groups, const Value& value) {
  std::vector<double> rewards, values, reward_gaps, value_gaps;  // gaps: to the group's mean
  for (const auto& [id, members] : groups) {
    const auto n = static_cast<double>(members.size());
    double reward = 0, other = 0;
    for (const AuditRollout* r : members) reward += r->facts.reward / n, other += value(*r) / n;
    for (const AuditRollout* r : members) {
      rewards.push_back(r->facts.reward);
      values.push_back(value(*r));
      reward_gaps.push_back(r->facts.reward - reward);
      value_gaps.push_back(value(*r) - other);
    }
  }
  return {correlation(rewards, values), correlation(reward_gaps, value_gaps)};
}

Rollouts singletons_of(const Groups& groups) {
  Rollouts found;
  for (const auto& [id, members] : groups) {
    const auto passed = [](const AuditRollout* r) { return r->facts.passed; };
    if (members.size() < kLargeGroup || std::ranges::count_if(members, passed) != 1) continue;
    found.push_back(*std::ranges::find_if(members, passed));
  }
  std::ranges::stable_sort(found, [](const AuditRollout* a, const AuditRollout* b) {
    return a->facts.assignment.step > b->facts.assignment.step;
  });
  return found;
}

std::vector<RepeatedAnswer> repeated_of(const Rollouts& all) {
  struct Count {
    RepeatedAnswer answer;
    std::set<std::int64_t> tasks;
  };
  std::map<std::string, Count> counts;
  for (const AuditRollout* r : all) {
    if (r->answer.empty()) continue;
    Count& count = counts[r->answer];
    ++count.answer.rollouts;
    count.answer.pass_rate += r->facts.passed ? 1 : 0;
    count.tasks.insert(r->facts.assignment.task_row);
  }
  std::vector<RepeatedAnswer> repeated;
  for (auto& [answer, count] : counts) {
    count.answer.answer = answer;
    count.answer.tasks = static_cast<std::int64_t>(count.tasks.size());
    count.answer.pass_rate /= static_cast<double>(count.answer.rollouts);
    if (count.answer.tasks >= kTasksOfRepeated) repeated.push_back(count.answer);
  }
  std::ranges::stable_sort(repeated, [](const auto& a, const auto& b) {
    return std::tuple(-a.tasks, -a.rollouts) < std::tuple(-b.tasks, -b.rollouts);
  });
  repeated.resize(std::min(repeated.size(), kRepeated));
  return repeated;
}

// The steps of a run as the clusters see them: a first and a last fifth.
struct Spans {
  std::int64_t first_end = 0, last_begin = 0;
  std::map<std::int64_t, double> rollouts;  // of each step
  double first = 0, last = 0;               // rollouts in those
};

Spans spans_of(const Rollouts& all) {
  Spans spans;
  for (const AuditRollout* r : all) ++spans.rollouts[r->facts.assignment.step];
  std::vector<std::int64_t> steps;
  for (const auto& [step, count] : spans.rollouts) steps.push_back(step);
  const std::size_t fifth = std::max<std::size_t>(1, steps.size() / 5);
  spans.first_end = steps[fifth - 1] + 1;
  spans.last_begin = steps[steps.size() - fifth];
  for (const auto& [step, count] : spans.rollouts) {
    spans.first += step < spans.first_end ? count : 0;
    spans.last += step >= spans.last_begin ? count : 0;
  }
  return spans;
}

// The first of each task in their order, then what is left.
Rollouts other_tasks_first(const Rollouts& all) {
  std::set<std::int64_t> tasks;
  Rollouts first, left;
  for (const AuditRollout* r : all)
    (tasks.insert(r->facts.assignment.task_row).second ? first : left).push_back(r);
  first.insert(first.end(), left.begin(), left.end());
  return first;
}

BehaviourCluster cluster_of(const std::string& behaviour, const Rollouts& members,
                            const Spans& spans) {
  BehaviourCluster cluster;
  cluster.behaviour = behaviour;
  const auto n = static_cast<double>(members.size());
  cluster.rollouts = static_cast<std::int64_t>(members.size());
  for (const AuditRollout* r : members) {
    const std::int64_t step = r->facts.assignment.step;
    cluster.reward_mean += r->facts.reward / n;
    cluster.pass_rate += r->facts.passed ? 1 / n : 0;
    cluster.share_first += step < spans.first_end ? 1 / spans.first : 0;
    cluster.share_last += step >= spans.last_begin ? 1 / spans.last : 0;
    cluster.share_of_step[step] += 1 / spans.rollouts.at(step);
    if (step < spans.last_begin) continue;
    ++cluster.lately;
    cluster.examples.push_back(r);
  }
  std::ranges::stable_sort(cluster.examples, [](const AuditRollout* a, const AuditRollout* b) {
    return a->facts.reward > b->facts.reward;
  });
  cluster.examples = other_tasks_first(cluster.examples);
  cluster.examples.resize(std::min(cluster.examples.size(), kExamples));
  return cluster;
}

// Of the behaviours that the top quarter of the last steps' rewards show.
std::vector<BehaviourCluster> clusters_of(const Rollouts& all, const Spans& spans) {
  std::vector<double> rewards;
  for (const AuditRollout* r : all)
    if (r->facts.assignment.step >= spans.last_begin) rewards.push_back(r->facts.reward);
  const double top = percentile(rewards, kTopShare);
  std::map<std::string, Rollouts> members;
  std::set<std::string> shown;
  for (const AuditRollout* r : all) {
    members[r->behaviour].push_back(r);
    if (r->facts.assignment.step >= spans.last_begin && r->facts.reward >= top)
      shown.insert(r->behaviour);
  }
  std::vector<BehaviourCluster> clusters;
  for (const std::string& behaviour : shown)
    clusters.push_back(cluster_of(behaviour, members.at(behaviour), spans));
  std::ranges::stable_sort(clusters, [](const auto& a, const auto& b) {
    return std::tuple(-a.growth(), -a.lately) < std::tuple(-b.growth(), -b.lately);
  });
  clusters.resize(std::min(clusters.size(), kClusters));
  return clusters;
}

}  // namespace

AuditRollout audit_rollout(const Trajectory& t, RolloutFacts facts) {
  AuditRollout r;
  r.facts = std::move(facts);
  const std::string answer = normal(t.final_text);
  r.behaviour = calls_of(t) + " | " + to_string(t.end) + " | " + shape_of(answer);
  r.answer = answer.substr(0, kAnswerBytes);
  r.without_tools = t.tool_events.empty() && !answer.empty();
  r.parroted = is_parroted(answer, t);
  r.repetition = repetition_of(answer);
  r.flags = t.grade.flags;
  for (const auto& [name, open] : t.grade.gates)
    if (!open) r.closed_gates.push_back(name);
  r.confirmation = confirmation_of(t.grade);
  return r;
}

Audit audit_of(std::span<const AuditRollout> all) {
  Audit audit;
  Rollouts graded;
  Groups groups;
  for (const AuditRollout& r : all) {
    const std::int64_t step = r.facts.assignment.step;
    if (r.facts.graded()) {
      graded.push_back(&r);
      groups[r.facts.assignment.group].push_back(&r);
    }
    for (const std::string& flag : r.flags) ++audit.flags[flag][step];
    for (const std::string& gate : r.closed_gates) ++audit.gates[gate][step];
  }
  if (graded.empty()) return audit;
  const Spans spans = spans_of(graded);
  audit.steps = static_cast<std::int64_t>(spans.rollouts.size());
  audit.last_begin = spans.last_begin;
  audit.clusters = clusters_of(graded, spans);
  audit.singletons = singletons_of(groups);
  audit.repeated = repeated_of(graded);
  audit.length = correlation_of(
      groups, [](const AuditRollout& r) { return static_cast<double>(r.facts.tokens); });
  audit.calls = correlation_of(
      groups, [](const AuditRollout& r) { return static_cast<double>(r.facts.tool_calls); });
  return audit;
}

}  // namespace rollcall
