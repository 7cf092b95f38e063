// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "comms/task.h"
#include "configs/run_config.h"
#include "rollout_workers/grade_probe.h"
#include "trainer/collector.h"
#include "trainer/preflight.h"

namespace rollcall {

struct GraderTrialSizes {
  std::int64_t canary_tasks = 16;           // of the sampled ones
  std::int64_t transcripts = 4, times = 4;  // graded again
};

// Has the grader judge answers that deserve no pass, on some of the tasks: nothing at all, a
// constant, the user's message copied, and an answer that the policy gave to another task (one that
// passed, if there is any).
std::vector<Canary> try_canaries(const GradeProbeSetup&, std::span<const Task>,
                                 std::span<const Collected> sampled,
                                 const std::filesystem::path& journal, const GraderTrialSizes&);

// Has some transcripts graded again, under the trace_id that they had; what passed first.
RepeatedGrading try_regrading(const GradeProbeSetup&, std::span<const Task>,
                              std::span<const Collected> sampled,
                              const std::filesystem::path& journal, const GraderTrialSizes&);

}  // namespace rollcall
