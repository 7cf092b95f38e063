// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "comms/error.h"
#include "configs/run_config.h"

namespace rollcall {

class World;

enum class WeightSource { kLearner, kModelFiles };

// A rollout worker from its first message to its last. An error costs this worker alone: it goes to
// its log and to the lead learner, which ends the run only if it is one of bad input.
ExitCode run_worker_rank(const RunConfig&, World&, WeightSource);

}  // namespace rollcall
