// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "comms/error.h"
#include "trainer/arrivals.h"
#include "trainer/evaluation.h"
#include "trainer/step_metrics.h"
#include "trainer/task_pool.h"

namespace rollcall {
namespace {

using testing::HasSubstr;

constexpr std::int64_t kStep = 5;

// A graded trajectory of one token that the step's policy sampled.
Collected rollout(std::int64_t group, std::int32_t member, double reward) {
  Trajectory t;
  t.assignment.group = group;
  t.assignment.member = member;
  t.tokens = {1, 2};
  t.is_action = {0, 1};
  t.behavior_logprobs = {0, -1};
  t.assignment.version = kStep;
  t.token_version = {-1, kStep};
  t.prompt_length = 1;
  t.grade.score = t.grade.reward = reward;
  t.grade.passed = reward == 1;
  return {group * 100 + member, std::make_shared<const Trajectory>(std::move(t))};
}

// A rollout's own trajectory, to be changed.
Trajectory& own(Collected& c) {
  const auto copy = std::make_shared<Trajectory>(*c.trajectory);
  c.trajectory = copy;
  return *copy;
}

StepBatch plan(const std::vector<Collected>& collected) {
  return make_step_batch(collected, /*committed_rows=*/1000,
                         {.advantage = {.kind = AdvantageKind::kRloo}}, kStep);
}

Collected left_out(Collected c, FaultReason why) {
  own(c).fault = why;
  return c;
}

TEST(StepBatch, RefusesARowThatIsNotCommitted) {
  const std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 0)};  // rows 0 and 1
  const auto with_committed = [&](std::int64_t rows) {
    return make_step_batch(collected, rows, {.advantage = {.kind = AdvantageKind::kRloo}}, 5);
  };
  EXPECT_EQ(with_committed(2).in_loss.size(), 2u);
  EXPECT_THROW(with_committed(1), Error);
}

TEST(StepBatch, ComparesWithRolloutsThatItDoesNotLearnFrom) {
  std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 0), rollout(0, 2, 0),
                                   rollout(1, 0, 1), rollout(1, 1, 0)};
  own(collected[1]).end = EndReason::kMaxNewTokens;
  own(collected[2]).tool_events.emplace_back();  // its call could not be read
  own(collected[3]).end = own(collected[4]).end = EndReason::kMaxTurns;
  const auto in_loss = [&](BaselineOnly rule) {
    const auto batch = make_step_batch(
        collected, 1000, {.advantage = {.kind = AdvantageKind::kRloo}, .baseline_only = rule}, 5);
    EXPECT_DOUBLE_EQ(batch.uses[0].advantage, 1);  // against both failures, learnt from or not
    EXPECT_EQ(batch.prompt.back(), static_cast<std::int64_t>(rule.limits ? 0 : 1));
    return batch.in_loss;
  };
  EXPECT_THAT(in_loss({}), testing::ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(in_loss({.limits = true}), testing::ElementsAre(0, 2));
  EXPECT_THAT(in_loss({.void_turns = true}), testing::ElementsAre(0, 1, 3, 4));
}

TEST(StepBatch, ComparesRewardsAfterTheirPenalties) {
  const std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 1), rollout(1, 0, 0),
                                         rollout(1, 1, 1)};
  const std::vector<double> penalties{0.25, 0, 0, 0.5};
  const auto batch =
      make_step_batch(collected, 1000, {.advantage = {.kind = AdvantageKind::kRloo}}, 5, penalties);
  EXPECT_DOUBLE_EQ(batch.uses[0].reward, 0.75);
  EXPECT_DOUBLE_EQ(batch.uses[3].advantage, 0.5);
  EXPECT_EQ(batch.signal.groups_all_one, 1);  // of the rewards themselves
  EXPECT_EQ(batch.signal.groups_signal, 1);
}

TEST(StepBatch, LearnsNothingFromPenaltiesAlone) {
  const std::vector<Collected> collected{rollout(0, 0, 0), rollout(0, 1, 0), rollout(1, 0, 0),
                                         rollout(1, 1, 0)};
  const std::vector<double> dust{1e-4, 0, 0, 2e-4};
  for (const auto kind : {AdvantageKind::kRloo, AdvantageKind::kGrpoStd, AdvantageKind::kBatchStd,
                          AdvantageKind::kRlooBatchStd}) {
    const auto batch = make_step_batch(collected, 1000, {.advantage = {.kind = kind}}, 5, dust);
    EXPECT_TRUE(batch.in_loss.empty()) << advantage_names()[static_cast<std::size_t>(kind)];
  }
}

TEST(StepBatch, KeepsGroupsWithoutVarianceWhereADivergencePullsAtThem) {
  const std::vector<Collected> collected{rollout(0, 0, 0), rollout(0, 1, 0)};
  const auto batch = make_step_batch(
      collected, 1000, {.advantage = {.kind = AdvantageKind::kRloo}, .every_group_in_loss = true},
      5);
  EXPECT_THAT(batch.in_loss, testing::ElementsAre(0, 1));
  EXPECT_DOUBLE_EQ(batch.uses[0].advantage, 0);
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

TEST(StepBatch, MakesTheSameOfAGroupWithSignalHoweverManyWithoutStandBesideIt) {
  const StepBatchOptions by_deviation{.advantage = {.kind = AdvantageKind::kRlooBatchStd}};
  std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 0)};
  const auto alone = make_step_batch(collected, 1000, by_deviation, kStep);
  EXPECT_NEAR(alone.uses[0].advantage, std::sqrt(2), 1e-5);  // 1 over the deviation of 1 and 0
  for (std::int64_t group = 1; group < 9; ++group) {
    collected.push_back(rollout(group, 0, 0));
    collected.push_back(rollout(group, 1, 0));
  }
  const auto among_many = make_step_batch(collected, 1000, by_deviation, kStep);
  EXPECT_EQ(among_many.uses[0].advantage, alone.uses[0].advantage);
  EXPECT_THAT(among_many.in_loss, testing::ElementsAre(0, 1));
  EXPECT_EQ(among_many.signal.groups_all_zero, 8);
}

TEST(StepBatch, IsAMeanOverAllGroupsIfWanted) {
  StepBatchOptions options{.advantage = {.kind = AdvantageKind::kRloo}, .expected_groups = 4};
  const std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 0), rollout(1, 0, 0),
                                         rollout(1, 1, 0), rollout(2, 0, 1), rollout(2, 1, 1),
                                         rollout(3, 0, 1), rollout(3, 1, 0)};
  const auto batch = make_step_batch(collected, 1000, options, kStep);
  EXPECT_THAT(batch.in_loss, testing::ElementsAre(0, 1, 6, 7));
  EXPECT_DOUBLE_EQ(batch.uses[0].advantage, 0.5) << "two of four groups teach";
  EXPECT_DOUBLE_EQ(batch.uses[7].advantage, -0.5);
  options.expected_groups = 8;
  EXPECT_DOUBLE_EQ(make_step_batch(collected, 1000, options, kStep).uses[0].advantage, 0.25)
      << "of the groups that were expected, however many there were";
}

TEST(StepBatch, ComparesPassesWherePassAtKIsLearnt) {
  std::vector<Collected> collected{rollout(0, 0, 0.4), rollout(0, 1, 0.9), rollout(0, 2, 0.1)};
  own(collected[0]).grade.passed = true;  // by a threshold of its own, behind a shut gate ...
  own(collected[1]).grade.passed = false;
  const auto batch = make_step_batch(collected, 1000,
                                     {.advantage = {.kind = AdvantageKind::kPassK, .k = 1}}, kStep);
  EXPECT_GT(batch.uses[0].advantage, 0);
  EXPECT_LT(batch.uses[1].advantage, 0);
  EXPECT_DOUBLE_EQ(batch.uses[1].advantage, batch.uses[2].advantage);
  EXPECT_EQ(batch.signal.groups_signal, 1);
  own(collected[0]).grade.passed = false;  // rewards differ still, and nothing is compared
  const auto none = make_step_batch(collected, 1000,
                                    {.advantage = {.kind = AdvantageKind::kPassK, .k = 1}}, kStep);
  EXPECT_EQ(none.signal.groups_signal, 0);
  EXPECT_EQ(signal_mass(group_outcomes(collected, AdvantageKind::kPassK)), 0);
  EXPECT_GT(signal_mass(group_outcomes(collected, AdvantageKind::kRloo)), 0);
}

TEST(StepBatch, LeavesOutAGroupWithoutAnAdvantage) {
  const std::vector<Collected> collected{rollout(0, 0, 1), rollout(0, 1, 1), rollout(0, 2, 0),
                                         rollout(1, 0, 1), rollout(1, 1, 0), rollout(1, 2, 0)};
  // Two successes of three: every pair holds one.
  const auto batch =
      make_step_batch(collected, 1000, {.advantage = {.kind = AdvantageKind::kPassK, .k = 2}}, 5);
  EXPECT_EQ(batch.in_loss, (std::vector<std::size_t>{3, 4, 5}));
  EXPECT_EQ(batch.signal.groups_signal, 2);
}

TEST(StepBatch, UsesEveryValidRolloutWhereACriticCompares) {
  auto stale = rollout(3, 0, 1);
  own(stale).token_version = {-1, 7};
  const std::vector<Collected> collected{rollout(0, 0, 0),
                                         rollout(0, 1, 0),
                                         rollout(1, 0, 1),
                                         left_out(rollout(1, 1, 0), FaultReason::kToolFault),
                                         stale,
                                         left_out(rollout(4, 0, 0), FaultReason::kMasked)};
  const auto batch =
      make_step_batch(collected, 1000, {.advantage = {.kind = AdvantageKind::kGae}}, 5);
  EXPECT_EQ(batch.in_loss, (std::vector<std::size_t>{0, 1, 2}));
  EXPECT_EQ(batch.prompt, (std::vector<std::int64_t>{0, 0, 1}));
  EXPECT_EQ(batch.signal.groups_dropped, 2);
  EXPECT_EQ(batch.signal.groups_signal, 0);
}

TEST(StepMetrics, SayNothingOfThePolicyWhereTheCriticLearnsAlone) {
  StepMetrics metrics;
  metrics.update.critic = CriticStats{{.loss = 0.5}, 0.25, 0.1, 0.2};
  const auto value_of = [&](const std::string& wanted) {
    for (const auto& [name, value] : step_metrics(metrics, {}, {}))
      if (name == wanted) return value;
    return -1.0;
  };
  EXPECT_EQ(value_of("explained_variance"), 0.25);
  EXPECT_EQ(value_of("loss"), 0);
  metrics.update.policy_learns = false;
  EXPECT_TRUE(std::isnan(value_of("loss")));
  EXPECT_EQ(value_of("value_loss"), 0.5);
  EXPECT_THAT(step_line(metrics, {}, {}), HasSubstr("explained variance 0.25  critic alone"));
}

TEST(StepBatch, KeepsAFaultOutOfLossAndBaseline) {
  auto faulted = rollout(0, 2, 0);
  own(faulted).fault = FaultReason::kToolFault;
  const auto with = plan({rollout(0, 0, 1), rollout(0, 1, 0), faulted});
  EXPECT_DOUBLE_EQ(with.uses[0].advantage, 1);  // leave-one-out over two, not three
  EXPECT_FALSE(with.uses[2].in_loss);
  EXPECT_EQ(with.signal.faults, 1);
  EXPECT_DOUBLE_EQ(with.signal.reward_mean, 0.5);
}

TEST(StepBatch, CountsPassesAsTheGradesSay) {
  auto gated = rollout(0, 1, 1);
  own(gated).grade.passed = false;
  EXPECT_DOUBLE_EQ(plan({rollout(0, 0, 1), gated}).signal.pass_rate, 0.5);
}

TEST(StepBatch, HasNoUpdateAndNoMeansWhereEveryRolloutIsMasked) {
  const std::vector<Collected> all{left_out(rollout(0, 0, 1), FaultReason::kMasked),
                                   left_out(rollout(0, 1, 0), FaultReason::kMasked)};
  const auto batch = plan(all);
  EXPECT_TRUE(batch.in_loss.empty());
  EXPECT_EQ(batch.signal.masked, 2);
  EXPECT_EQ(batch.signal.faults, 0);
  EXPECT_EQ(batch.signal.groups_dropped, 1);
  EXPECT_TRUE(std::isnan(batch.signal.reward_mean));
  EXPECT_TRUE(std::isnan(batch.signal.pass_rate));
  const std::string line = step_line({}, batch.signal, all);
  EXPECT_THAT(line, HasSubstr("no rollout graded  signal 0/1 groups  masked 2"));
  EXPECT_THAT(line, HasSubstr("no update"));
}

TEST(Arrivals, TellMostFrequentFaultAndMasks) {
  Arrivals arrivals;
  EXPECT_FALSE(arrivals.add(*rollout(0, 0, 1).trajectory));
  EXPECT_EQ(arrivals.left_out(), "");
  const auto add = [&](FaultReason why) {
    return arrivals.add(*left_out(rollout(0, 0, 0), why).trajectory);
  };
  EXPECT_TRUE(add(FaultReason::kToolFault));
  EXPECT_TRUE(add(FaultReason::kGraderFault));
  EXPECT_FALSE(add(FaultReason::kGraderFault));
  EXPECT_FALSE(add(FaultReason::kMasked));
  EXPECT_EQ(arrivals.left_out(), "  faults 3 (grader_fault)  masked 1");
  EXPECT_EQ(arrivals.count(), 5);
}

TEST(RefuseIfAllLost, NamesTheFirstFaultAndLetsMasksPass) {
  auto dead = left_out(rollout(0, 0, 0), FaultReason::kToolFault);
  own(dead).fault_detail = "tool get at http://t:1/x: HTTP 500";
  auto zeroed = rollout(0, 1, 0);
  own(zeroed).end = EndReason::kInfraExhausted;
  const auto masked = left_out(rollout(0, 2, 0), FaultReason::kMasked);
  EXPECT_NO_THROW(refuse_if_all_lost(std::vector{masked, masked}, "the step"));
  EXPECT_NO_THROW(refuse_if_all_lost(std::vector{dead, masked}, "the step"));
  EXPECT_NO_THROW(refuse_if_all_lost(std::vector{dead, rollout(0, 3, 0)}, "the step"));
  try {
    refuse_if_all_lost(std::vector{dead, zeroed}, "the step");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kNoEndpoint);
    EXPECT_THAT(error.what(), HasSubstr("tool_fault (tool get at http://t:1/x: HTTP 500)"));
  }
}

TEST(StepBatch, DropsAGroupWithFewerThanTwoValidMembers) {
  auto faulted = rollout(0, 1, 0);
  own(faulted).fault = FaultReason::kGraderFault;
  const auto batch = plan({rollout(0, 0, 1), faulted});
  EXPECT_TRUE(batch.in_loss.empty());
  EXPECT_EQ(batch.signal.groups_dropped, 1);
}

Collected sampled_by(Collected rollout, std::int32_t version) {
  own(rollout).token_version = {-1, version};
  return rollout;
}

TEST(StepBatch, LeavesOutWhatAnotherPolicySampled) {
  const auto batch =
      plan({rollout(0, 0, 1), sampled_by(rollout(0, 1, 0), 4), sampled_by(rollout(1, 0, 1), 6),
            rollout(1, 1, 0), rollout(2, 0, 1), rollout(2, 1, 0)});
  EXPECT_EQ(batch.in_loss, (std::vector<std::size_t>{4, 5}));
  EXPECT_EQ(batch.signal.groups_dropped, 2);
}

TEST(StepBatch, LearnsFromOlderPoliciesUpToTheLag) {
  auto two_policies = rollout(0, 0, 1);
  Trajectory& t = own(two_policies);
  t.tokens = {1, 2, 9, 3};
  t.is_action = {0, 1, 0, 1};
  t.behavior_logprobs = {0, -1, 0, -1};
  t.token_version = {-1, 3, -1, 5};
  const std::vector<Collected> collected{two_policies, rollout(0, 1, 0), rollout(1, 0, 1),
                                         sampled_by(rollout(1, 1, 0), 2)};
  const auto batch = make_step_batch(
      collected, 1000, {.advantage = {.kind = AdvantageKind::kRloo}, .max_lag = 2}, kStep);
  EXPECT_EQ(batch.in_loss, (std::vector<std::size_t>{0, 1})) << "a token is 3 versions behind";
  EXPECT_EQ(batch.signal.groups_dropped, 1);

  const VersionSpan versions = sampled_versions(t);
  EXPECT_EQ(std::pair(versions.oldest, versions.newest), std::pair(std::int64_t{3}, kStep));
  const PolicyLag lag = policy_lag(collected, kStep);
  EXPECT_DOUBLE_EQ(lag.mean, (2 + 0 + 0 + 0 + 3) / 5.0);
  EXPECT_EQ(lag.max, 3);
  EXPECT_EQ(lag.mixed_share, 0.25);
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
  own(collected[2]).assignment.task_row = own(collected[3]).assignment.task_row = 1;
  own(collected[3]).fault = FaultReason::kToolFault;
  const Evaluation e = evaluate_rollouts(collected);
  EXPECT_DOUBLE_EQ(e.pass_at_1, 0.75);
  EXPECT_EQ(e.tasks, 2);
  EXPECT_EQ(e.graded_tasks, 2);
  EXPECT_EQ(e.faults, 1);
}

TEST(Evaluation, TellsWhatWasPlannedAndWhatIsMissing) {
  std::vector<Collected> collected;
  for (std::int64_t task = 0; task < 4; ++task) {
    for (std::int32_t member = 0; member < 3; ++member) {
      collected.push_back(rollout(task, member, task == 0 ? 1 : 0));
      own(collected.back()).assignment.task_row = task;
      if (task >= 2) own(collected.back()).fault = FaultReason::kToolFault;
    }
  }
  own(collected.back()).fault = FaultReason::kMasked;
  const Evaluation e = evaluate_rollouts(collected);
  EXPECT_EQ(e.tasks, 4);
  EXPECT_EQ(e.samples, 3);
  EXPECT_EQ(e.graded_tasks, 2);
  EXPECT_EQ(e.faults, 5);
  EXPECT_EQ(e.masked, 1);
  EXPECT_DOUBLE_EQ(e.pass_at_1, 0.5);
  EXPECT_THAT(evaluation_line(e),
              HasSubstr("left out: 6 of 12 rollouts (5 faults, 1 masked), and with them 2 of 4"));
}

TEST(Evaluation, CountsCanariesApart) {
  std::vector<Collected> collected{rollout(0, 0, 0), rollout(1, 0, 1), rollout(1, 1, 0),
                                   left_out(rollout(1, 2, 1), FaultReason::kToolFault)};
  EXPECT_FALSE(canary_pass_rate(collected));
  for (std::size_t i = 1; i < 4; ++i) own(collected[i]).assignment.split = Split::kCanary;
  EXPECT_DOUBLE_EQ(canary_pass_rate(collected).value(), 0.5);
  EXPECT_DOUBLE_EQ(evaluate_rollouts(collected).pass_at_1, 0);
  EXPECT_EQ(evaluate_rollouts(collected).samples, 1);
}

TEST(Evaluation, IsNoNumberWithoutAGrade) {
  const std::vector<Collected> collected{left_out(rollout(0, 0, 1), FaultReason::kMasked),
                                         left_out(rollout(0, 1, 1), FaultReason::kToolFault)};
  const Evaluation e = evaluate_rollouts(collected);
  EXPECT_TRUE(std::isnan(e.pass_at_1) && std::isnan(e.low_95) && std::isnan(e.high_95));
  EXPECT_EQ(e.tasks, 1);
  EXPECT_EQ(e.graded_tasks, 0);
  EXPECT_THAT(evaluation_line(e), HasSubstr("unknown"));
}

}  // namespace
}  // namespace rollcall
