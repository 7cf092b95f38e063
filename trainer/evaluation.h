// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "trainer/collector.h"
#include "trainer/training_loop.h"

namespace rollcall {

// Assignments of one evaluation: the first `tasks` held-out rows (0: all), `samples` rollouts each,
// and all canaries likewise.
// Their groups have ids of their own, so that training goes the same way with and without them.
std::vector<Assignment> plan_evaluation(const TrainSetup&, std::int64_t step);

// Pass rates of the held-out rollouts of one evaluation; what is not graded leaves its task's mean.
Evaluation evaluate_rollouts(std::span<const Collected>);

// Share of the graded rollouts of canaries that pass; nothing if there are none.
std::optional<double> canary_pass_rate(std::span<const Collected>);

}  // namespace rollcall
