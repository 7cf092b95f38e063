// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_plan.h"

#include <gtest/gtest.h>

#include <set>

#include "comms/error.h"
#include "trainer/evaluation.h"
#include "trainer/task_pool.h"

namespace rollcall {
namespace {

// A graded trajectory of one sampled token.
Collected rollout(std::int64_t group, std::int32_t member, double reward) {
  Trajectory t;
  t.assignment.group = group;
  t.assignment.member = member;
  t.tokens = {1, 2};
  t.is_action = {0, 1};
  t.behavior_logprobs = {0, -1};
  t.token_version = {-1, 0};
  t.prompt_length = 1;
  t.grade.score = t.grade.reward = reward;
  return {group * 100 + member, t};
}

StepBatch plan(const std::vector<Collected>& collected) {
  return make_step_batch(collected, /*committed_rows=*/1000, {.kind = AdvantageKind::kRloo},
                         /*pass_threshold=*/1.0, /*step=*/5);
}

TEST(StepBatch, RefusesARowThatIsNotCommitted) {
  const std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 0)};  // rows 0 and 1
  const auto with_committed = [&](std::int64_t rows) {
    return make_step_batch(collected, rows, {.kind = AdvantageKind::kRloo}, 1.0, 5);
  };
  EXPECT_EQ(with_committed(2).in_loss.size(), 2u);
  EXPECT_THROW(with_committed(1), Error);
}

TEST(StepBatch, UsesGroupsWhoseRewardsDiffer) {
  const auto batch = plan({rollout(0, 0, 1), rollout(0, 1, 0), rollout(1, 0, 0), rollout(1, 1, 0)});
  EXPECT_EQ(batch.in_loss, (std::vector<std::size_t>{0, 1}));
  EXPECT_DOUBLE_EQ(batch.uses[0].advantage, 1);
  EXPECT_DOUBLE_EQ(batch.uses[1].advantage, -1);
  EXPECT_EQ(batch.signal.groups_signal, 1);
  EXPECT_EQ(batch.signal.groups_all_zero, 1);
  EXPECT_DOUBLE_EQ(batch.signal.reward_mean, 0.25);
}

TEST(StepBatch, LeavesOutAGroupWithoutAnAdvantage) {
  const std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 1), rollout(0, 2, 0),
                                         rollout(1, 0, 1), rollout(1, 1, 0), rollout(1, 2, 0)};
  // Two successes of three: every pair holds one.
  const auto batch =
      make_step_batch(collected, 1000, {.kind = AdvantageKind::kPassK, .k = 2}, 1.0, 5);
  EXPECT_EQ(batch.in_loss, (std::vector<std::size_t>{3, 4, 5}));
  EXPECT_EQ(batch.signal.groups_signal, 2);
}

TEST(StepBatch, KeepsAFaultOutOfLossAndBaseline) {
  auto faulted = rollout(0, 2, 0);
  faulted.trajectory.fault = FaultReason::kToolFault;
  const auto with = plan({rollout(0, 0, 1), rollout(0, 1, 0), faulted});
  EXPECT_DOUBLE_EQ(with.uses[0].advantage, 1);  // leave-one-out over two, not three
  EXPECT_FALSE(with.uses[2].in_loss);
  EXPECT_EQ(with.signal.faults, 1);
  EXPECT_DOUBLE_EQ(with.signal.reward_mean, 0.5);
}

TEST(StepBatch, DropsAGroupWithFewerThanTwoValidMembers) {
  auto faulted = rollout(0, 1, 0);
  faulted.trajectory.fault = FaultReason::kGraderFault;
  const auto batch = plan({rollout(0, 0, 1), faulted});
  EXPECT_TRUE(batch.in_loss.empty());
  EXPECT_EQ(batch.signal.groups_dropped, 1);
}

TEST(StepBatch, NeverMixesPolicyVersionsInAGroup) {
  auto stale = rollout(0, 1, 0);
  stale.trajectory.token_version = {-1, 7};
  const auto batch = plan({rollout(0, 0, 1), stale, rollout(1, 0, 1), rollout(1, 1, 0)});
  EXPECT_EQ(batch.in_loss, (std::vector<std::size_t>{2, 3}));
  EXPECT_EQ(batch.signal.groups_dropped, 1);
}

TEST(PlanGroups, GivesEveryMemberASeedOfItsOwn) {
  const std::vector<std::int64_t> rows{5, 9};
  const auto assignments = plan_groups(1, Split::kTrain, 3, 3, rows, 4, 10);
  std::set<std::uint64_t> seeds;
  for (const auto& a : assignments) seeds.insert(a.seed);
  EXPECT_EQ(seeds.size(), 8u);
  EXPECT_EQ(assignments[5].group, 11);
  EXPECT_EQ(assignments[5].member, 1);
  EXPECT_EQ(assignments[5].task_row, 9);
}

TEST(PlanGroups, MeetsTheSameDrawsInEveryEvaluation) {
  const std::vector<std::int64_t> rows{5, 9};
  const auto before = plan_groups(1, Split::kValid, 0, 0, rows, 2, 0);
  const auto after = plan_groups(1, Split::kValid, 60, 60, rows, 2, 777);
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_EQ(before[i].seed, after[i].seed);
}

TEST(TaskPool, DrawsEveryTaskOnceAnEpoch) {
  TaskPool pool(7, 3);
  const auto first = pool.draw(7), second = pool.draw(7);
  EXPECT_EQ(std::set<std::int64_t>(first.begin(), first.end()).size(), 7u);
  EXPECT_EQ(std::set<std::int64_t>(second.begin(), second.end()).size(), 7u);
  EXPECT_NE(first, second);
}

TEST(TaskPool, GoesOnWhereItWas) {
  TaskPool one(5, 3), other(5, 3);
  one.draw(8);
  other.restore(8);
  EXPECT_EQ(one.draw(6), other.draw(6));
}

TEST(Evaluation, AveragesOverTasksAndLeavesFaultsOut) {
  std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 0), rollout(1, 0, 1),
                                   rollout(1, 1, 0)};
  collected[2].trajectory.assignment.task_row = collected[3].trajectory.assignment.task_row = 1;
  collected[3].trajectory.fault = FaultReason::kToolFault;
  const Evaluation e = evaluate_rollouts(collected, 1.0);
  EXPECT_DOUBLE_EQ(e.pass_at_1, 0.75);
  EXPECT_EQ(e.tasks, 2);
  EXPECT_EQ(e.faults, 1);
}

}  // namespace
}  // namespace rollcall
