// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "comms/error.h"

namespace rollcall {

enum class RunStatus { kDone, kStopped, kFailed };
const char* to_string(RunStatus);  // "done", "stopped", "failed"

struct EvalResult {
  double pass_at_1 = 0;
  std::int64_t tasks = 0;
  std::int64_t samples = 0;  // rollouts per task
};

// How a run ended: RUN/result.json, the only proof of success.
struct RunResult {
  RunStatus status = RunStatus::kFailed;
  ExitCode exit_code = ExitCode::kFailure;
  std::int64_t step = 0;                       // optimizer steps done
  std::optional<EvalResult> before, after;     // held-out evaluation
  std::string checkpoint, export_dir, report;  // paths; empty: none
  std::string message;                         // one line for a person; no secrets
};

// Written aside, synced, renamed: the file is whole or absent. Throws Error.
void write_result(const std::filesystem::path& file, const RunResult&);
// Nothing if there is no such file. Throws Error naming the file if it is unreadable.
std::optional<RunResult> read_result(const std::filesystem::path& file);

}  // namespace rollcall
