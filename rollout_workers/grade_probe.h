// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "comms/task.h"
#include "comms/trajectory.h"
#include "model/chat_format.h"
#include "rollout_workers/grader.h"
#include "rollout_workers/rollout_options.h"

namespace rollcall {

struct GradeProbeSetup {
  std::filesystem::path model_dir;  // tokenizer and chat template
  ChatOptions chat;
  GraderOptions grader;
  std::string job_id;  // X-Rft-Job-Id
};

// What the grader is asked outside of a rollout.
struct GradeProbe {
  Trajectory trajectory;       // with its tokens, or without any: then final_text is its one turn
  const Task* task = nullptr;  // to be graded against; must outlive the call
  int repetition = 0;          // 0: under a new trace_id; n: under its own, for the n-th time again
};

// Asks the grader about all of them, as many at once as it takes, by the requests that a rollout
// would have made: retries and circuit breaker as in a run, faults are no scores. Throws Error
// (kNoEndpoint) once the grader is given up.
std::vector<GradeOutcome> grade_probes(const GradeProbeSetup&, std::span<const GradeProbe>);

}  // namespace rollcall
