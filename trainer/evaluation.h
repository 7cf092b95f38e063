// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "trainer/collector.h"
#include "trainer/training_loop.h"

namespace rollcall {

// Assignments of one evaluation: the first `tasks` held-out rows (0: all), `samples` rollouts each.
// Their groups have ids of their own, so that training goes the same way with and without them.
std::vector<Assignment> plan_evaluation(const TrainSetup&, std::int64_t step);

// Pass rates of all rollouts of one evaluation; what is not graded leaves its task's mean.
Evaluation evaluate_rollouts(std::span<const Collected>);

}  // namespace rollcall
