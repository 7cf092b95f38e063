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

// Where rollouts come from.
struct RolloutSource {
  // Those of a round in the order of its plan, or none to leave the step.
  std::function<std::vector<Collected>(std::span<const Assignment> plan)> collect;
  // Will be asked for by a later step, maybe more than once until then. May be empty.
  std::function<void(std::span<const Assignment> plan)> start = {};
};

// The step's rollouts, round after round, with the scaler's part of the record. With
// policy.max_lag L the first rounds of the L steps behind it are planned and started before.
// Empty, and the scaler as it was, if `collect` left the step.
std::vector<Collected> collect_rounds(const TrainSetup&, std::int64_t step, BatchScaler&,
                                      const RolloutSource&, StepMetrics& record);

// Rewards, advantages, and one update of the weights from them, with its part of the record.
StepBatch update_step(const TrainSetup&, Updater&, std::span<const Collected>,
                      std::int64_t committed_rows, std::int64_t step, const StepSize&,
                      const std::function<void()>& between, StepMetrics& record);

}  // namespace rollcall
