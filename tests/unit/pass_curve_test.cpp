// SPDX-License-Identifier: Apache-2.0
#include "trainer/pass_curve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "model/sampling.h"
#include "trainer/bootstrap.h"
#include "trainer/comparison.h"

namespace rollcall {
namespace {

using testing::ElementsAre;

TaskOutcome outcome(std::int64_t task, std::int64_t passed, std::int64_t graded) {
  TaskOutcome o{.task = task, .passed = passed};
  for (std::int64_t i = 0; i < graded; ++i) o.scores.push_back(i < passed ? 1 : 0);
  return o;
}

Collected rollout(std::int64_t task, double score, FaultReason fault = FaultReason::kNone) {
  Trajectory t;
  t.assignment.task_row = task;
  t.grade.score = score;
  t.grade.passed = score == 1;
  t.fault = fault;
  return {0, std::make_shared<const Trajectory>(std::move(t))};
}

TEST(Bootstrap, IsTheSameForTheSameSeedAndAnotherForAnother) {
  const std::vector<double> values{0, 1, 0.5, 0.25, 1, 0, 0, 1};
  const Estimate one = bootstrap_mean(values, 1), again = bootstrap_mean(values, 1);
  EXPECT_EQ(one.low_95, again.low_95);
  EXPECT_EQ(one.high_95, again.high_95);
  EXPECT_DOUBLE_EQ(one.mean, 3.75 / 8);
  EXPECT_NE(resampled(8, 1, 0), resampled(8, 2, 0));
  EXPECT_NE(resampled(8, 1, 0), resampled(8, 1, 1));
}

TEST(Bootstrap, HasTheWidthOfTheNormalApproximation) {
  std::vector<double> values;
  for (int i = 0; i < 400; ++i) values.push_back(i % 4 == 0 ? 1 : 0);
  const Estimate e = bootstrap_mean(values, 3);
  const double half = 1.96 * std::sqrt(0.25 * 0.75 / 400);
  EXPECT_NEAR(e.low_95, 0.25 - half, 0.005);
  EXPECT_NEAR(e.high_95, 0.25 + half, 0.005);
}

TEST(Bootstrap, BoundsWhatWasNeverSeenByTheRuleOfThree) {
  const Estimate none = bootstrap_rate(std::vector<double>(60, 0.0), 1);
  EXPECT_DOUBLE_EQ(none.high_95, 0.05);
  const Estimate all = bootstrap_rate(std::vector<double>(60, 1.0), 1);
  EXPECT_DOUBLE_EQ(all.low_95, 0.95);
  EXPECT_TRUE(std::isnan(bootstrap_rate({}, 1).mean));
}

TEST(PassCurve, IsAsByHand) {
  const std::vector<TaskOutcome> tasks{outcome(0, 1, 4), outcome(1, 0, 4)};
  const auto curve = pass_curve(tasks, 4, 1);
  ASSERT_EQ(curve.size(), 3u);
  EXPECT_DOUBLE_EQ(curve[0].pass.mean, 0.125);  // (1/4 + 0) / 2
  EXPECT_DOUBLE_EQ(curve[1].pass.mean, 0.25);   // 1 - C(3,2)/C(4,2) = 1/2
  EXPECT_DOUBLE_EQ(curve[2].pass.mean, 0.5);
  EXPECT_DOUBLE_EQ(curve[1].best.mean, 0.25);  // the scores are the passes
}

TEST(PassCurve, TakesAtEachKTheTasksThatHaveSoMany) {
  const std::vector<TaskOutcome> tasks{outcome(0, 1, 3), outcome(1, 1, 1)};
  const auto curve = pass_curve(tasks, 3, 1);
  ASSERT_EQ(curve.size(), 3u);
  EXPECT_EQ(curve[0].tasks, 2);
  EXPECT_EQ(curve[2].tasks, 1);
  EXPECT_DOUBLE_EQ(curve[2].pass.mean, 1);
}

TEST(PassCurve, EndsAtTheNumberOfSamples) {
  EXPECT_THAT(curve_places(6), ElementsAre(1, 2, 4, 6));
  EXPECT_THAT(curve_places(8), ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(curve_places(1), ElementsAre(1));
}

TEST(PassCurve, DoesNotDependOnTheOrderOfTasks) {
  std::vector<Collected> rollouts{rollout(1, 1), rollout(0, 0), rollout(1, 0), rollout(0, 0.5)};
  const auto one = pass_curve(task_outcomes(rollouts), 2, 7);
  std::reverse(rollouts.begin(), rollouts.end());
  const auto other = pass_curve(task_outcomes(rollouts), 2, 7);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(one[i].pass.high_95, other[i].pass.high_95);
    EXPECT_EQ(one[i].best.mean, other[i].best.mean);
  }
}

TEST(PassCurve, LeavesFaultsAndMasksOut) {
  const auto tasks =
      task_outcomes(std::vector{rollout(0, 1), rollout(0, 0, FaultReason::kGraderFault),
                                rollout(1, 1, FaultReason::kMasked)});
  ASSERT_EQ(tasks.size(), 1u);
  EXPECT_EQ(tasks[0].graded(), 1);
  EXPECT_EQ(tasks[0].rate(), 1);
}

// Known success rates: the estimates of many experiments lie around the truth.
TEST(PassCurve, FindsKnownRatesWithinThreeStandardErrors) {
  const std::vector<double> rates{0.02, 0.1, 0.3, 0.7};
  constexpr int kTasks = 400, kSamples = 16;
  std::vector<TaskOutcome> tasks;
  double truth = 0;
  for (int t = 0; t < kTasks; ++t) {
    const double p = rates[static_cast<std::size_t>(t) % rates.size()];
    std::int64_t passed = 0;
    for (int s = 0; s < kSamples; ++s)
      passed += uniform_draw(11, static_cast<std::uint64_t>(t * kSamples + s)) < p ? 1 : 0;
    tasks.push_back(outcome(t, passed, kSamples));
    truth += (1 - std::pow(1 - p, 8)) / kTasks;
  }
  const Estimate pass_8 = pass_curve(tasks, kSamples, 1)[3].pass;
  const double standard_error = (pass_8.high_95 - pass_8.low_95) / (2 * 1.96);
  EXPECT_NEAR(pass_8.mean, truth, 3 * standard_error);
}

TEST(Comparison, PairsByTask) {
  const std::vector<TaskOutcome> policy{outcome(0, 2, 2), outcome(1, 1, 2), outcome(2, 0, 2),
                                        outcome(9, 2, 2)};
  const std::vector<TaskOutcome> baseline{outcome(2, 1, 2), outcome(1, 1, 2), outcome(0, 0, 2)};
  const Comparison c = compare_paired(policy, baseline, 1);
  EXPECT_EQ(c.tasks, 3);  // the fourth has no partner
  EXPECT_EQ(c.won, 1);
  EXPECT_EQ(c.lost, 1);
  EXPECT_EQ(c.tied, 1);
  EXPECT_DOUBLE_EQ(c.difference.mean, 0.5 / 3);
  EXPECT_DOUBLE_EQ(c.sign_test_p, 1);
}

TEST(Comparison, SeesADifferenceThatEachTaskShows) {
  std::vector<TaskOutcome> policy, baseline;
  for (int t = 0; t < 20; ++t) {
    policy.push_back(outcome(t, 3, 4));
    baseline.push_back(outcome(t, 1 + t % 2, 4));
  }
  const Comparison c = compare_paired(policy, baseline, 1);
  EXPECT_GT(c.difference.low_95, 0.25);
  EXPECT_LT(c.sign_test_p, 1e-5);
  const Comparison turned = compare_paired(baseline, policy, 1);
  EXPECT_DOUBLE_EQ(turned.difference.mean, -c.difference.mean);
  EXPECT_EQ(turned.sign_test_p, c.sign_test_p);
}

TEST(Comparison, CountsCoinsByHand) {
  EXPECT_DOUBLE_EQ(sign_test(0, 0), 1);
  EXPECT_NEAR(sign_test(5, 0), 2.0 / 32, 1e-12);
  EXPECT_NEAR(sign_test(4, 1), 12.0 / 32, 1e-12);
  EXPECT_NEAR(sign_test(100000, 100000), 1, 1e-9);
}

}  // namespace
}  // namespace rollcall
