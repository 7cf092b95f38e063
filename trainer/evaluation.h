// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/collector.h"
#include "trainer/training_loop.h"

namespace rollcall {

// Assignments of one evaluation: the first `tasks` held-out rows (0: all), `samples` rollouts each.
std::vector<Assignment> plan_evaluation(const TrainSetup&, std::int64_t step, std::int64_t version,
                                        std::int64_t first_group);

// Pass rates of collected held-out rollouts; a fault leaves its task's mean.
Evaluation evaluate_rollouts(std::span<const Collected>, double pass_threshold);

}  // namespace rollcall
