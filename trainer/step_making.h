// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "trainer/batch_scaler.h"
#include "trainer/collector.h"
#include "trainer/step_metrics.h"
#include "trainer/step_plan.h"
#include "trainer/training_loop.h"
#include "trainer/update.h"

namespace rollcall {

// What makes a step out of rollouts, wherever those come from: the training loop gets them from
// workers, a replay from the journal, and both come to the same bits.

// Gives the rollouts of a round in the order of its plan, or none to leave the step.
using CollectRound = std::function<std::vector<Collected>(std::span<const Assignment> plan)>;

// The step's rollouts, round after round, with the scaler's part of the record; `next_group` is the
// next unused group id. Empty, and group id and scaler as they were, if `collect` left the step.
std::vector<Collected> collect_rounds(std::uint64_t run_seed, std::int64_t step,
                                      std::int64_t& next_group, BatchScaler&,
                                      const CollectRound& collect, StepMetrics& record);

// Rewards, advantages, and one update of the weights from them, with its part of the record.
StepBatch update_step(const TrainSetup&, Updater&, std::span<const Collected>,
                      std::int64_t committed_rows, std::int64_t step, const StepSize&,
                      const std::function<void()>& between, StepMetrics& record);

}  // namespace rollcall
