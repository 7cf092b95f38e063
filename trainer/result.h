// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace rollcall {

enum class RunStatus { kRunning, kDone, kStopped, kFailed };

// A held-out evaluation. Without a graded rollout there is no rate: NaN here, null in JSON.
struct Evaluation {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  double pass_at_1 = kNone;                // mean over graded tasks of the share of passed rollouts
  double low_95 = kNone, high_95 = kNone;  // normal approximation over tasks, clipped to [0, 1]
  std::int64_t tasks = 0, samples = 0;     // planned: tasks, and rollouts per task
  std::int64_t graded_tasks = 0;           // of them, with a graded rollout at least
  std::int64_t faults = 0, masked = 0;     // rollouts left out
  // k and pass@k for k = 2, 4, .. and `samples`: in metrics.jsonl alone.
  std::vector<std::pair<std::int64_t, double>> pass_at_k = {};
};

// As a JSON object; {"pass_at_1": null, ..} where there is no rate.
std::string evaluation_json(const Evaluation&);

// How a run ended: runs/<name>/result.json, the only proof of success.
struct RunResult {
  RunStatus status = RunStatus::kRunning;
  int exit_code = 0;
  std::int64_t step = 0;  // optimizer steps done
  std::optional<Evaluation> before, after;
  std::string checkpoint, export_dir, adapter_dir, report;  // paths; empty if there is none
  std::string message;  // one line for a person; empty if all went well
};

// Written aside and renamed: complete or absent.
void write_result(const std::filesystem::path& run_dir, const RunResult&);

// Nothing if there is no result.json, or, with a warning, if it holds no result: a run needs none
// to go on.
std::optional<RunResult> read_result(const std::filesystem::path& run_dir);

// Before a run's ranks start: its last result, if any, is no longer how it ended.
void mark_result_running(const std::filesystem::path& run_dir);

}  // namespace rollcall
