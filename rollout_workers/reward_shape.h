// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "comms/trajectory.h"
#include "rollout_workers/rollout_options.h"

namespace rollcall {

// What a rollout has spent, in the units of its budgets.
struct Spent {
  double tool_calls = 0;      // also those that a limit kept from being made
  double tool_seconds = 0;    // latencies of all calls, retries included
  double sampled_tokens = 0;  // of all turns
};
Spent spent(const Trajectory&);

// Takes the price of the budgets off a grade whose reward is set. Only a success pays, and success
// always dominates: a failure earns at most what is left to a success that pays every cap. What was
// paid is noted in grade.sub_rewards as cost.tool_calls, cost.latency and cost.length.
// `pass_reward` is the least reward of a success before costs. Without budgets nothing changes.
void apply_budgets(const RolloutOptions&, const Spent&, double pass_reward, Grade& grade);

}  // namespace rollcall
