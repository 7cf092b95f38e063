// SPDX-License-Identifier: Apache-2.0
#include "trainer/run_facts.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "trainer/journal.h"

namespace rollcall {
namespace {

CallFacts call_of(std::int64_t step, const ToolEvent& event) {
  return {.step = step,
          .tool = event.name,
          .latency_s = event.latency_s,
          .retries = event.retries,
          .is_error = event.is_error,
          .is_fault = event.status >= 500};
}

void add_journal(RunFacts& run, const std::filesystem::path& file) {
  const JournalReader reader(file);
  const std::int64_t rows = reader.rows();
  run.committed_rows += reader.committed_rows();
  run.rows += rows;
  for (std::int64_t row = 0; row < rows; ++row) {
    const Trajectory t = reader.read_texts(row);
    RolloutFacts facts = facts_of(t);
    facts.journal = file;
    facts.row = row;
    facts.tokens = reader.token_count(row);
    const bool training = t.assignment.split == Split::kTrain;
    const bool canary = t.assignment.split == Split::kCanary;
    (training ? run.train : canary ? run.canaries : run.valid).push_back(std::move(facts));
    if (!training) continue;
    for (const ToolEvent& event : t.tool_events) {
      run.calls.push_back(call_of(t.assignment.step, event));
    }
  }
}

// The report outlives the schema: an unreadable config costs the values taken from it, no more.
void read_config(RunFacts& run, const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return;
  run.config = read_file(file);
  try {
    const YAML::Node config = YAML::Load(run.config);
    run.name = config["run"]["name"].as<std::string>(run.name);
    run.compares_passes = config["algorithm"]["advantage"].as<std::string>("") == "passk";
  } catch (const YAML::Exception&) {
  }
}

using GroupRollouts = std::map<std::int64_t, std::vector<const RolloutFacts*>>;

void count_group(StepFacts& facts, const std::vector<const RolloutFacts*>& members,
                 bool compares_passes) {
  const auto value = [&](const RolloutFacts* facts_of_one) {
    return compares_passes ? (facts_of_one->passed ? 1.0 : 0.0) : facts_of_one->reward;
  };
  const auto [least, most] = std::ranges::minmax_element(members, {}, value);
  ++facts.groups;
  if (value(*least) != value(*most)) {
    ++facts.groups_signal;
  } else {
    ++((*least)->passed ? facts.groups_all_pass : facts.groups_all_fail);
  }
}

StepFacts step_of(std::int64_t step, const std::vector<const RolloutFacts*>& rollouts,
                  bool compares_passes) {
  StepFacts facts;
  facts.step = step;
  facts.rollouts = static_cast<double>(rollouts.size());
  std::vector<double> rewards, calls, seconds, tokens;
  GroupRollouts groups;
  double passed = 0;
  for (const RolloutFacts* rollout : rollouts) {
    if (!rollout->graded()) {
      ++(rollout->fault == FaultReason::kMasked ? facts.masked : facts.faults);
      continue;
    }
    groups[rollout->assignment.group].push_back(rollout);
    rewards.push_back(rollout->reward);
    passed += rollout->passed ? 1 : 0;
    calls.push_back(static_cast<double>(rollout->tool_calls));
    seconds.push_back(rollout->wall_time_s);
    tokens.push_back(static_cast<double>(rollout->tokens));
  }
  for (const auto& [id, members] : groups) count_group(facts, members, compares_passes);
  const auto graded = static_cast<double>(rewards.size());
  if (rewards.empty()) facts.reward_mean = std::numeric_limits<double>::quiet_NaN();
  for (const double reward : rewards) facts.reward_mean += reward / graded;
  facts.pass_rate = passed / graded;
  facts.tool_calls_p50 = percentile(calls, 0.5);
  facts.tool_calls_p95 = percentile(calls, 0.95);
  facts.seconds_p50 = percentile(seconds, 0.5);
  facts.seconds_p95 = percentile(seconds, 0.95);
  facts.tokens_p50 = percentile(tokens, 0.5);
  facts.tokens_p95 = percentile(tokens, 0.95);
  return facts;
}

std::map<std::int64_t, std::vector<const RolloutFacts*>> by_step(
    const std::vector<RolloutFacts>& rollouts) {
  std::map<std::int64_t, std::vector<const RolloutFacts*>> steps;
  for (const RolloutFacts& rollout : rollouts) steps[rollout.assignment.step].push_back(&rollout);
  return steps;
}

EvalFacts evaluation_of(std::int64_t step, const std::vector<const RolloutFacts*>& rollouts) {
  EvalFacts facts;
  facts.step = step;
  std::map<std::int64_t, std::pair<double, double>> counts;  // passed, graded
  for (const RolloutFacts* rollout : rollouts) {
    if (!rollout->graded()) continue;
    auto& [passed, graded] = counts[rollout->assignment.task_row];
    passed += rollout->passed ? 1 : 0;
    ++graded;
  }
  std::vector<double> rates;
  for (const auto& [task, count] : counts) {
    rates.push_back(count.first / count.second);
    facts.pass_of_task[task] = rates.back();
  }
  facts.pass_at_1 = interval_of(rates);
  facts.pass_at_1.low = std::max(0.0, facts.pass_at_1.low);
  facts.pass_at_1.high = std::min(1.0, facts.pass_at_1.high);
  return facts;
}

}  // namespace

RolloutFacts facts_of(const Trajectory& t) {
  RolloutFacts facts;
  facts.assignment = t.assignment;
  facts.end = t.end;
  facts.fault = t.fault;
  facts.score = t.grade.score;
  facts.reward = t.grade.reward;
  facts.passed = facts.graded() && t.grade.passed;
  facts.wall_time_s = t.wall_time_s;
  facts.generate_time_s = t.generate_time_s;
  facts.grade_latency_s = t.grade.latency_s;
  facts.tool_calls = static_cast<std::int64_t>(t.tool_events.size());
  facts.fault_detail = t.fault_detail;
  return facts;
}

std::vector<std::filesystem::path> journals_of(const std::filesystem::path& run_dir) {
  std::vector<std::filesystem::path> files;
  std::error_code absent;
  for (const auto& entry : std::filesystem::directory_iterator(run_dir / "journal", absent)) {
    if (entry.path().extension() == ".h5") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::filesystem::path journal_of(const std::filesystem::path& run_dir) {
  const std::vector<std::filesystem::path> journals = journals_of(run_dir);
  if (journals.empty()) {
    throw input_error(run_dir.string() + " has no journal",
                      "name a run's folder, such as runs/<name>");
  }
  return journals.front();
}

bool is_run(const std::filesystem::path& run_dir) {
  std::error_code absent;
  return !journals_of(run_dir).empty() ||
         std::filesystem::exists(run_dir / "result.json", absent) ||
         std::filesystem::exists(run_dir / "metrics.jsonl", absent);
}

RunFacts read_run(const std::filesystem::path& run_dir) {
  RunFacts run;
  run.name = std::filesystem::weakly_canonical(run_dir).filename().string();
  read_config(run, run_dir / "config.yaml");
  run.result = read_result(run_dir);
  run.metrics = read_metrics(run_dir / "metrics.jsonl");
  for (const std::filesystem::path& file : journals_of(run_dir)) add_journal(run, file);
  return run;
}

std::vector<StepFacts> steps_of(const RunFacts& run) {
  std::vector<StepFacts> steps;
  for (const auto& [step, rollouts] : by_step(run.train))
    steps.push_back(step_of(step, rollouts, run.compares_passes));
  return steps;
}

Interval interval_of(std::span<const double> values) {
  Interval interval;
  interval.tasks = static_cast<std::int64_t>(values.size());
  if (values.empty()) return interval;
  const auto n = static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) interval.mean += value / n;
  for (const double value : values) squares += (value - interval.mean) * (value - interval.mean);
  const double half_width = n > 1 ? 1.96 * std::sqrt(squares / (n - 1) / n) : 0;
  interval.low = interval.mean - half_width;
  interval.high = interval.mean + half_width;
  return interval;
}

std::vector<EvalFacts> evaluations_of(const RunFacts& run) {
  std::vector<EvalFacts> evaluations;
  for (const auto& [step, rollouts] : by_step(run.valid)) {
    EvalFacts facts = evaluation_of(step, rollouts);
    if (facts.pass_at_1.tasks > 0) evaluations.push_back(std::move(facts));
  }
  return evaluations;
}

Interval paired_change(const EvalFacts& before, const EvalFacts& after) {
  std::vector<double> changes;
  for (const auto& [task, rate] : after.pass_of_task) {
    const auto first = before.pass_of_task.find(task);
    if (first != before.pass_of_task.end()) changes.push_back(rate - first->second);
  }
  return interval_of(changes);
}

}  // namespace rollcall
