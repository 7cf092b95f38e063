// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/reward_shape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rollcall {
namespace {

using testing::ElementsAre;
using testing::Pair;

Grade grade(double reward, bool passed) {
  Grade result;
  result.reward = reward;
  result.passed = passed;
  return result;
}

RolloutOptions all_budgets() {
  RolloutOptions options;
  options.tool_budget = {.free = 4, .penalty_per_call = 0.01, .cap = 0.1};
  options.latency_budget = {.free = std::chrono::seconds(2), .penalty_per_second = 0.1, .cap = 0.1};
  options.length_budget = {.free = 100, .limit = 200, .cap = 0.2};
  return options;
}

double reward_after(const RolloutOptions& options, const Spent& spent, Grade g) {
  apply_budgets(options, spent, 1.0, g);
  return g.reward;
}

TEST(RewardShape, CostsNothingWithoutBudgets) {
  const Spent much{.tool_calls = 1e6, .tool_seconds = 1e6, .sampled_tokens = 1e6};
  EXPECT_EQ(reward_after({}, much, grade(1, true)), 1);
  EXPECT_EQ(reward_after({}, much, grade(0.99, false)), 0.99);
}

TEST(RewardShape, PricesWhatIsBeyondTheFreePartUpToTheCap) {
  const RolloutOptions options = all_budgets();
  const auto reward = [&](Spent spent) { return reward_after(options, spent, grade(1, true)); };
  EXPECT_DOUBLE_EQ(reward({.tool_calls = 4, .tool_seconds = 2, .sampled_tokens = 100}), 1);
  EXPECT_DOUBLE_EQ(reward({.tool_calls = 7}), 0.97);
  EXPECT_DOUBLE_EQ(reward({.tool_calls = 1000}), 0.9);
  EXPECT_DOUBLE_EQ(reward({.tool_seconds = 2.5}), 0.95);
  EXPECT_DOUBLE_EQ(reward({.sampled_tokens = 150}), 0.9);
  EXPECT_DOUBLE_EQ(reward({.sampled_tokens = 200}), 0.8);
  EXPECT_DOUBLE_EQ(reward({.tool_calls = 1000, .tool_seconds = 99, .sampled_tokens = 1e6}), 0.6);
}

TEST(RewardShape, NotesWhatWasPaid) {
  Grade g = grade(1, true);
  apply_budgets(all_budgets(), {.tool_calls = 6, .sampled_tokens = 110}, 1.0, g);
  EXPECT_THAT(g.sub_rewards, ElementsAre(Pair("cost.tool_calls", testing::DoubleEq(0.02)),
                                         Pair("cost.length", testing::DoubleEq(0.02))));
}

TEST(RewardShape, SuccessDominatesWhateverItCost) {
  const RolloutOptions options = all_budgets();
  const double dearest = reward_after(
      options, {.tool_calls = 1000, .tool_seconds = 99, .sampled_tokens = 1e6}, grade(1, true));
  EXPECT_LE(reward_after(options, {}, grade(0.999, false)), dearest);
  EXPECT_DOUBLE_EQ(reward_after(options, {.tool_calls = 1000}, grade(0.25, false)), 0.25);
}

TEST(RewardShape, CountsWhatARolloutSpent) {
  Trajectory t;
  t.is_action = {0, 1, 1, 0, 1};
  t.tool_events.resize(3);
  t.tool_events[0].name = t.tool_events[2].name = "get";  // the other could not be read
  for (auto& event : t.tool_events) event.latency_s = 0.5;
  const Spent sum = spent(t);
  EXPECT_EQ(sum.tool_calls, 2);
  EXPECT_DOUBLE_EQ(sum.tool_seconds, 1.5);
  EXPECT_EQ(sum.sampled_tokens, 3);
}

}  // namespace
}  // namespace rollcall
