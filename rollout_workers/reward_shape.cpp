// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/reward_shape.h"

#include <algorithm>
#include <chrono>

namespace rollcall {
namespace {

struct Budget {
  const char* name;
  double cap;
  double excess;  // spent beyond what is free
  double price;
  double cost() const { return std::clamp(price * excess, 0.0, cap); }
};

std::vector<Budget> budgets(const RolloutOptions& options, const Spent& spent) {
  const ToolBudget& calls = options.tool_budget;
  const LatencyBudget& latency = options.latency_budget;
  const LengthBudget& length = options.length_budget;
  std::vector<Budget> all{
      {"cost.tool_calls", calls.cap, spent.tool_calls - calls.free, calls.penalty_per_call},
      {"cost.latency", latency.cap,
       spent.tool_seconds - std::chrono::duration<double>(latency.free).count(),
       latency.penalty_per_second},
      {"cost.length", length.cap, spent.sampled_tokens - static_cast<double>(length.free),
       length.cap / static_cast<double>(std::max<std::int64_t>(1, length.limit - length.free))}};
  std::erase_if(all, [](const Budget& budget) { return budget.cap == 0; });
  return all;
}

}  // namespace

Spent spent(const Trajectory& t) {
  Spent sum;
  for (const ToolEvent& event : t.tool_events) {
    sum.tool_calls += event.name.empty() ? 0 : 1;
    sum.tool_seconds += event.latency_s;
  }
  sum.sampled_tokens = static_cast<double>(sampled_tokens(t));
  return sum;
}

void apply_budgets(const RolloutOptions& options, const Spent& spent, double pass_reward,
                   Grade& grade) {
  double caps = 0;
  for (const Budget& budget : budgets(options, spent)) {
    caps += budget.cap;
    if (!grade.passed || budget.cost() == 0) continue;
    grade.reward -= budget.cost();
    grade.sub_rewards.emplace_back(budget.name, budget.cost());
  }
  if (caps > 0 && !grade.passed) grade.reward = std::min(grade.reward, pass_reward - caps);
}

}  // namespace rollcall
