// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/batch_scaler.h"
#include "trainer/run_period.h"

namespace rollcall {

class JournalReader;

// What the batch scaler decided for a step, and what came of it.
struct BatchDecision {
  std::int64_t step = 0;
  std::vector<BatchScaler::Round> rounds;
  double signal = 0;     // of the step
  double step_size = 1;  // of the learning rate
};

// How many tasks data.train had, by what the journal says of its run; throws Error if it does not.
std::int64_t train_tasks(const JournalReader&);

// The decisions of a run, made again from what its updates used. Throws Error at the first step
// whose rollouts are of other tasks than decided: the options are not those of that step.
std::vector<BatchDecision> replay_batches(const JournalReader&, std::span<const RunPeriod>,
                                          std::int64_t tasks, std::uint64_t seed);

}  // namespace rollcall
