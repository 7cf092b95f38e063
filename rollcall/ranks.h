// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "comms/error.h"
#include "comms/world.h"
#include "configs/run_config.h"
#include "rollcall/commands.h"

namespace rollcall {

class StopClock;
class StopSignal;

// Runs this program and its arguments as `learners` and `workers` ranks under mpirun, which are
// asked to stop when the clock (may be null) is due.
JobEnd start_ranks(const ClusterOptions&, const RunArguments&, const StopClock* clock = nullptr);

// Threads that this rank's tensor operations use.
void use_threads(int threads);
// OMP_NUM_THREADS if it is set, else an equal share of this host's cores; workers idle while
// learners update.
int learner_threads(int learners);

// Whether a rank writes a log into the folder of its run.
enum class RankLog { kFile, kNone };

// The frame of every rank: joins MPI, checks that the number of ranks is the configured one, opens
// the rank's log, runs `body`, and leaves. An error is logged and ends all ranks; a worker's ends
// only that worker, unless the lead learner hears that it is one of bad input. Does not return.
[[noreturn]] int run_rank(const RunConfig&,
                          const std::function<ExitCode(World&, const StopSignal&)>& body,
                          RankLog log = RankLog::kFile);

}  // namespace rollcall
