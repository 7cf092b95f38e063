// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comms/trajectory.h"
#include "trainer/metrics.h"
#include "trainer/result.h"

namespace rollcall {

// One journalled rollout, without its texts and tokens.
struct RolloutFacts {
  std::filesystem::path journal;  // and row: where to read the rest
  std::int64_t row = 0;
  Assignment assignment;
  EndReason end = EndReason::kNone;
  FaultReason fault = FaultReason::kNone;
  double score = 0, reward = 0;
  bool passed = false;
  double wall_time_s = 0, generate_time_s = 0, grade_latency_s = 0;
  std::int64_t tokens = 0;  // prompt, model and tool tokens
  std::int64_t tool_calls = 0;
  std::string fault_detail;

  bool graded() const { return fault == FaultReason::kNone; }
};

// One tool call of a training rollout.
struct CallFacts {
  std::int64_t step = 0;
  std::string tool;
  double latency_s = 0;
  std::int32_t retries = 0;
  bool is_error = false;
  bool is_fault = false;  // no reply, or HTTP status 5xx
};

// What a run left behind, as far as the report and `inspect` need it.
struct RunFacts {
  std::string name;
  std::string config;            // config.yaml as it stands
  bool compares_passes = false;  // by it; else rewards
  std::optional<RunResult> result;
  std::vector<MetricsLine> metrics;
  std::vector<RolloutFacts> train, valid, canaries;  // in journal order
  std::vector<CallFacts> calls;                      // of train
  std::int64_t rows = 0, committed_rows = 0;
};

RolloutFacts facts_of(const Trajectory&);  // without journal, row and tokens

// Throws Error naming the file that is damaged. Missing files leave their part empty.
RunFacts read_run(const std::filesystem::path& run_dir);

// Whether the folder holds any of what a run leaves: a journal, result.json or metrics.jsonl.
bool is_run(const std::filesystem::path& run_dir);

// The journals of a run, one per learner, sorted.
std::vector<std::filesystem::path> journals_of(const std::filesystem::path& run_dir);

// The journal of the first learner. Throws an input Error if there is none.
std::filesystem::path journal_of(const std::filesystem::path& run_dir);

// One step's training rollouts in numbers. Faults and masked rollouts count in the first three
// alone; without others reward and pass rate are NaN.
struct StepFacts {
  std::int64_t step = 0;  // of the assignment: the policy had taken so many steps
  double rollouts = 0, faults = 0, masked = 0;
  double reward_mean = 0, pass_rate = 0;
  double groups = 0, groups_signal = 0, groups_all_fail = 0, groups_all_pass = 0;
  double tool_calls_p50 = 0, tool_calls_p95 = 0;
  double seconds_p50 = 0, seconds_p95 = 0;
  double tokens_p50 = 0, tokens_p95 = 0;
};
std::vector<StepFacts> steps_of(const RunFacts&);

// A mean over tasks with its 95 % interval (normal approximation).
struct Interval {
  double mean = 0, low = 0, high = 0;
  std::int64_t tasks = 0;
};
Interval interval_of(std::span<const double> values);

// Held-out pass@1 after `step` steps, and each task's share of passed rollouts.
struct EvalFacts {
  std::int64_t step = 0;
  Interval pass_at_1;  // clipped to [0, 1]
  std::map<std::int64_t, double> pass_of_task;
};
std::vector<EvalFacts> evaluations_of(const RunFacts&);  // by step
// Change of pass@1 on the tasks that both have, task by task.
Interval paired_change(const EvalFacts& before, const EvalFacts& after);

}  // namespace rollcall
