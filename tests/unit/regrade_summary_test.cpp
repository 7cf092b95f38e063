// SPDX-License-Identifier: Apache-2.0
#include "trainer/regrade_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rollcall {
namespace {

using ::testing::HasSubstr;

StoredVerdict graded(double score) {
  return {FaultReason::kNone, score, score, score >= 1, "because", ""};
}
StoredVerdict left_out(FaultReason why) { return {why, 0, 0, false, "", "gone"}; }

Regraded rollout(std::int64_t row, std::int64_t group, StoredVerdict before, StoredVerdict after,
                 Split split = Split::kTrain, std::int64_t step = 0) {
  Assignment a;
  a.step = step;
  a.group = a.task_row = group;
  a.split = split;
  return {row, a, "trace_" + std::to_string(row), true, std::move(before), std::move(after)};
}

TEST(RegradeSummary, SortsChanges) {
  const StoredVerdict fault = left_out(FaultReason::kGraderFault),
                      mask = left_out(FaultReason::kMasked);
  EXPECT_EQ(change_of(rollout(0, 0, graded(1), graded(1))), GradeChange::kSame);
  EXPECT_EQ(change_of(rollout(0, 0, mask, mask)), GradeChange::kSame);
  EXPECT_EQ(change_of(rollout(0, 0, graded(1), graded(0.5))), GradeChange::kPassToFail);
  EXPECT_EQ(change_of(rollout(0, 0, graded(0), graded(1))), GradeChange::kFailToPass);
  EXPECT_EQ(change_of(rollout(0, 0, graded(0), graded(0.5))), GradeChange::kScore);
  EXPECT_EQ(change_of(rollout(0, 0, graded(1), mask)), GradeChange::kMasked);
  EXPECT_EQ(change_of(rollout(0, 0, fault, graded(1))), GradeChange::kGradedNow);
  EXPECT_EQ(change_of(rollout(0, 0, graded(1), fault)), GradeChange::kUngraded);
}

TEST(RegradeSummary, CountsWhatAStepWouldHaveLearntOtherwise) {
  // Group 0 loses its only success; in group 1 pass and failure change places.
  const std::vector<Regraded> all{
      rollout(0, 0, graded(1), graded(0)), rollout(1, 0, graded(0), graded(0)),
      rollout(2, 1, graded(1), graded(0)), rollout(3, 1, graded(0), graded(1)),
      rollout(4, 2, graded(0), graded(0)), rollout(5, 2, graded(0), graded(0))};
  const RegradeSummary summary = summarize_regrade(all, {});
  ASSERT_EQ(summary.steps.size(), 1U);
  const StepRegrade& step = summary.steps[0];
  EXPECT_EQ(step.rollouts, 6);
  EXPECT_DOUBLE_EQ(step.pass_before, 2.0 / 6);
  EXPECT_DOUBLE_EQ(step.pass_after, 1.0 / 6);
  EXPECT_EQ(step.signal_before, 2);
  EXPECT_EQ(step.signal_after, 1);
  EXPECT_EQ(step.signal_changed, 1);
  EXPECT_EQ(step.signs_changed, 4) << "both of each changed group";
  EXPECT_EQ(summary.count(GradeChange::kPassToFail), 2);
  EXPECT_EQ(summary.most_changed.size(), 3U);
  EXPECT_EQ(summarize_regrade(all, {.kind = AdvantageKind::kGae}).steps[0].signs_changed,
            std::nullopt);
}

TEST(RegradeSummary, RolloutsNotGradedAgainKeepTheirGroupWhole) {
  std::vector<Regraded> all{rollout(0, 0, graded(1), graded(0)),
                            rollout(1, 0, graded(1), graded(1))};
  all[1].again = false;
  const RegradeSummary summary = summarize_regrade(all, {});
  EXPECT_EQ(summary.asked, 1);
  EXPECT_EQ(summary.steps.at(0).signal_before, 0);
  EXPECT_EQ(summary.steps.at(0).signal_after, 1);
  all[0].again = false;
  EXPECT_TRUE(summarize_regrade(all, {}).steps.empty());
}

// A grader that refuses says nothing of what it would have changed.
TEST(RegradeSummary, TakesNoRefusalForAChange) {
  const StoredVerdict refused = left_out(FaultReason::kGraderFault);
  const std::vector<Regraded> all{
      rollout(0, 0, graded(1), refused),   rollout(1, 0, graded(0), graded(0)),
      rollout(2, 0, graded(0), graded(0)), rollout(3, 1, graded(1), graded(1)),
      rollout(4, 1, graded(0), graded(0)), rollout(5, 1, graded(0), refused)};
  const StepRegrade step = summarize_regrade(all, {}).steps.at(0);
  EXPECT_EQ(step.signal_before, 1);
  EXPECT_EQ(step.signal_after, 1);
  EXPECT_EQ(step.signs_changed, 0);
}

TEST(RegradeSummary, ComparesPassesAsPassAtKDoes) {
  // Partial scores change, passes do not.
  const std::vector<Regraded> all{rollout(0, 0, graded(0.9), graded(0.1)),
                                  rollout(1, 0, graded(0.2), graded(0.8)),
                                  rollout(2, 0, graded(1), graded(1))};
  const AdvantageOptions passk{.kind = AdvantageKind::kPassK, .k = 1};
  EXPECT_EQ(summarize_regrade(all, passk).steps.at(0).signs_changed, 0);
  EXPECT_EQ(summarize_regrade(std::span(all).first(2), passk).steps.at(0).signal_after, 0);
}

TEST(RegradeSummary, TellsWhetherTheGainStays) {
  std::vector<Regraded> all;
  for (std::int64_t task = 0; task < 4; ++task) {
    all.push_back(rollout(task, task, graded(0), graded(0), Split::kValid, 0));
    all.push_back(rollout(4 + task, task, graded(1), graded(task == 0 ? 1 : 0), Split::kValid, 9));
  }
  all.push_back(rollout(8, 3, graded(0), left_out(FaultReason::kGraderFault), Split::kValid, 9));
  const RegradeSummary summary = summarize_regrade(all, {});
  ASSERT_TRUE(summary.gain);
  EXPECT_DOUBLE_EQ(summary.gain->before.mean, 1) << "what was not graded again counts on no side";
  EXPECT_DOUBLE_EQ(summary.gain->after.mean, 0.25);
  EXPECT_THAT(regrade_text(summary),
              HasSubstr("conclusion changes: the gain from step 0 to step 9, +100.0 points"));
  EXPECT_THAT(regrade_text(summary), HasSubstr("becomes +25.0 points"));
  EXPECT_THAT(regrade_json(summary), HasSubstr(R"("pass_to_fail":3)"));
}

TEST(RegradeSummary, ShowsTheMostChangedFirstOnOneLineEach) {
  std::vector<Regraded> all;
  for (int i = 0; i < 30; ++i) all.push_back(rollout(i, i, graded(0), graded(0.01 * (i + 1))));
  all[29].after.explanation = "two\nlines \x1b[31m" + std::string(1000, 'x');
  const RegradeSummary summary = summarize_regrade(all, {}, 3);
  ASSERT_EQ(summary.most_changed.size(), 3U);
  EXPECT_EQ(summary.most_changed[0].row, 29);
  EXPECT_EQ(summary.most_changed[2].row, 27);
  EXPECT_THAT(regrade_text(summary), HasSubstr("two lines  [31mxx"));
  EXPECT_LT(regrade_text(summary).size(), 1500U);
}

}  // namespace
}  // namespace rollcall
