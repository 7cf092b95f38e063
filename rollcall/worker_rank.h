// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "comms/error.h"
#include "configs/run_config.h"

namespace rollcall {

class World;

enum class WeightSource { kLearner, kModelFiles };

// A rollout worker, until it leaves.
ExitCode run_worker_rank(const RunConfig&, World&, WeightSource);

}  // namespace rollcall
