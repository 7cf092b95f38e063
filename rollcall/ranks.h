// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "comms/error.h"
#include "configs/run_config.h"

namespace rollcall {

class StopSignal;
class World;

// The frame of every rank: joins MPI, checks that the number of ranks is the configured one, opens
// the rank's log, runs `body`, and leaves. An error is logged and ends all ranks. Does not return.
[[noreturn]] int run_rank(const RunConfig&,
                          const std::function<ExitCode(World&, const StopSignal&)>& body);

}  // namespace rollcall
