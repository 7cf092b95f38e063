// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace rollcall {

enum class RunStatus { kRunning, kDone, kStopped, kFailed };

// A held-out evaluation as result.json keeps it.
struct EvalScore {
  double pass_at_1 = 0;
  double low_95 = 0, high_95 = 0;
  std::int64_t tasks = 0;
  std::int64_t samples = 0;  // rollouts per task
};

// How a run ended: runs/<name>/result.json, the only proof of success.
struct RunResult {
  RunStatus status = RunStatus::kRunning;
  int exit_code = 0;
  std::int64_t step = 0;  // optimizer steps done
  std::optional<EvalScore> before, after;
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
