// SPDX-License-Identifier: Apache-2.0
#include "trainer/alarm_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "trainer/gradient_watch.h"
#include "trainer/metric_names.h"

namespace rollcall {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// The metrics of a step in which all is well, but for some.
MetricList step(const std::map<std::string, double>& unusual = {}) {
  std::map<std::string, double> values{
      {metric::kRollouts, 256},          {metric::kGroups, 16},
      {metric::kGroupsSignal, 8},        {metric::kPassRate, 0.3},
      {metric::kLimitShare, 0.02},       {metric::kEntropyMean, 0.5},
      {metric::kRewardMean, 0.3},        {metric::kRewardStd, 0.45},
      {metric::kMismatchEssFraction, 1}, {metric::kMismatchK3Mean, 0},
      {metric::kClipHighFraction, 0.01}, {metric::kClipLowFraction, 0.01}};
  for (const auto& [name, value] : unusual) values[name] = value;
  return {values.begin(), values.end()};
}

std::vector<std::string> names(const std::vector<Alarm>& alarms) {
  std::vector<std::string> found;
  for (const Alarm& alarm : alarms) found.push_back(alarm.name);
  return found;
}

// The alarms that begin at any of `count` such steps.
std::vector<std::string> watch(AlarmWatch& alarms, int count,
                               const std::map<std::string, double>& unusual = {}) {
  std::vector<std::string> found;
  for (int i = 0; i < count; ++i)
    for (const std::string& name : names(alarms.add(step(unusual)))) found.push_back(name);
  return found;
}

TEST(AlarmWatch, IsSilentWhereAllIsWell) {
  AlarmWatch alarms({});
  EXPECT_THAT(watch(alarms, 40), IsEmpty());
  EXPECT_THAT(alarms.metrics(), IsEmpty());
}

TEST(AlarmWatch, TellsOnceThatThereIsNoSignalUntilThereIsAgain) {
  AlarmWatch alarms({});
  const std::map<std::string, double> dead{{metric::kGroupsSignal, 0}, {metric::kPassRate, 0}};
  EXPECT_THAT(watch(alarms, 4, dead), IsEmpty());  // too early to say
  const auto begun = alarms.add(step(dead));
  EXPECT_THAT(names(begun), ElementsAre("signal_share"));
  EXPECT_THAT(begun[0].what_to_do, HasSubstr("batch.adaptive"));
  EXPECT_THAT(alarms.metrics(), ElementsAre(testing::Pair("alarm.signal_share", 1)));
  EXPECT_THAT(watch(alarms, 9, dead), IsEmpty());
  EXPECT_THAT(watch(alarms, 5), IsEmpty());
  EXPECT_THAT(alarms.metrics(), IsEmpty());
  EXPECT_THAT(watch(alarms, 5, dead), ElementsAre("signal_share"));
}

TEST(AlarmWatch, TellsEasyTasksFromHopelessOnes) {
  AlarmWatch alarms({});
  watch(alarms, 4, {{metric::kGroupsSignal, 0}, {metric::kPassRate, 1}});
  const auto begun = alarms.add(step({{metric::kGroupsSignal, 0}, {metric::kPassRate, 1}}));
  ASSERT_EQ(begun.size(), 1u);
  EXPECT_THAT(begun[0].what_to_do, HasSubstr("nearly solved"));
}

TEST(AlarmWatch, KnowsEachRuleByItsName) {
  const std::map<std::string, std::pair<const char*, double>> rules{
      {"limit_share", {metric::kLimitShare, 0.3}},
      {"ess", {metric::kMismatchEssFraction, 0.2}},
      {"mismatch_k3", {metric::kMismatchK3Mean, 0.02}},
      {"clip", {metric::kClipHighFraction, 0.4}},
      {"entropy", {metric::kEntropyMean, 0.04}},
      {"reward_jump", {metric::kRewardMean, 0.6}}};
  for (const auto& [rule, unusual] : rules) {
    AlarmWatch alarms({});
    watch(alarms, 12);
    EXPECT_THAT(watch(alarms, 5, {{unusual.first, unusual.second}}), ElementsAre(rule));
  }
}

TEST(AlarmWatch, KnowsNoEntropyWhereNothingWasLearnt) {
  AlarmWatch alarms({});
  const double unknown = std::nan("");
  EXPECT_THAT(watch(alarms, 1, {{metric::kEntropyMean, unknown}}), IsEmpty());
  watch(alarms, 1, {{metric::kEntropyMean, 0.5}});
  EXPECT_THAT(watch(alarms, 1, {{metric::kEntropyMean, unknown}}), IsEmpty());
  EXPECT_THAT(watch(alarms, 1, {{metric::kEntropyMean, 0.04}}), ElementsAre("entropy"));
  EXPECT_THAT(watch(alarms, 1, {{metric::kEntropyMean, unknown}}), IsEmpty());
  EXPECT_THAT(watch(alarms, 1, {{metric::kEntropyMean, 0.04}}), IsEmpty());  // still the same
}

TEST(AlarmWatch, MayBeTurnedOffOrStopTheRun) {
  AlarmOptions options;
  options.entropy.action = AlarmAction::kOff;
  options.clip.action = AlarmAction::kStop;
  AlarmWatch alarms(options);
  watch(alarms, 1);
  const auto begun = alarms.add(step({{metric::kEntropyMean, 0}, {metric::kClipHighFraction, 1}}));
  EXPECT_THAT(names(begun), ElementsAre("clip"));
  EXPECT_EQ(begun[0].action, AlarmAction::kStop);
}

TEST(AlarmWatch, StopsARunThatIsStartedAgainUntilItOnlyWarns) {
  const std::map<std::string, double> clipped{{metric::kClipHighFraction, 0.9}};
  for (const AlarmAction action : {AlarmAction::kStop, AlarmAction::kWarn}) {
    AlarmOptions options;
    options.clip.action = action;
    AlarmWatch alarms(options);
    EXPECT_THAT(watch(alarms, 2, clipped), ElementsAre("clip"));
    alarms.forget_stops();
    EXPECT_EQ(watch(alarms, 1, clipped).size(), action == AlarmAction::kStop ? 1U : 0U);
  }
}

TEST(AlarmWatch, IsNotCalmedByAStepWithoutAnUpdate) {
  AlarmWatch alarms({});
  const double unknown = std::nan("");
  EXPECT_THAT(watch(alarms, 1, {{metric::kMismatchEssFraction, 0.1}}), ElementsAre("ess"));
  watch(alarms, 1, {{metric::kMismatchEssFraction, unknown}, {metric::kEntropyMean, unknown}});
  EXPECT_THAT(watch(alarms, 1, {{metric::kMismatchEssFraction, 0.1}}), IsEmpty());
}

TEST(AlarmWatch, TellsACollapseFromSuccess) {
  const auto after = [](double reward) {
    AlarmWatch alarms({});
    watch(alarms, 20);
    return watch(alarms, 20, {{metric::kRewardStd, 0.1}, {metric::kRewardMean, reward}});
  };
  EXPECT_THAT(after(0.01), ElementsAre("reward_spread"));
  EXPECT_THAT(after(0.99), ElementsAre("reward_jump"));
}

TEST(AlarmWatch, TakesNoUnknownNumberForAnAlarm) {
  AlarmWatch alarms({});
  std::map<std::string, double> unknown;
  for (const auto& [name, value] : step())
    if (name != metric::kRollouts) unknown[name] = std::nan("");
  EXPECT_THAT(watch(alarms, 40, unknown), IsEmpty());
}

TEST(AlarmWatch, HearsOfCanariesInEvaluations) {
  AlarmWatch alarms({});
  EXPECT_THAT(alarms.add({{metric::kEvalPassAt1, 0.5}, {metric::kCanaryPassRate, 0}}), IsEmpty());
  EXPECT_THAT(names(alarms.add({{metric::kCanaryPassRate, 0.01}})), ElementsAre("canary"));
}

TEST(AlarmWatch, HearsASecondGraderThatSeesNoGain) {
  const auto evaluation = [](double first, double second) {
    return MetricList{{metric::kEvalPassAt1, first},
                      {metric::kEvalGradedTasks, 100},
                      {metric::kEvalSecondPassAt1, second}};
  };
  AlarmWatch alarms({});
  EXPECT_THAT(alarms.add(evaluation(0.2, 0.2)), IsEmpty());
  EXPECT_THAT(alarms.add(evaluation(0.3, 0.1)), IsEmpty()) << "1.6 standard errors are chance";
  EXPECT_THAT(alarms.add(evaluation(0.6, 0.5)), IsEmpty()) << "both rise";
  EXPECT_THAT(names(alarms.add(evaluation(0.6, 0.1))), ElementsAre("second_grader"));
}

TEST(GradientWatch, KnowsTheUsualNormAfterTenUpdates) {
  GradientWatch watch(5);
  for (int i = 0; i < 9; ++i) watch.add(2, false);
  EXPECT_EQ(watch.limit(), 0);
  watch.add(0, false);             // no signal: no update
  watch.add(std::nan(""), false);  // the critic alone
  EXPECT_EQ(watch.limit(), 0);
  watch.add(2, false);
  EXPECT_DOUBLE_EQ(watch.limit(), 10);
  watch.add(12, false);
  EXPECT_DOUBLE_EQ(watch.limit(), 15);
}

TEST(GradientWatch, GoesBackAfterThreeInARow) {
  GradientWatch watch(5);
  for (int i = 0; i < 10; ++i) watch.add(2, false);
  EXPECT_FALSE(watch.add(20, true));
  EXPECT_FALSE(watch.add(20, true));
  EXPECT_FALSE(watch.add(2, false));
  EXPECT_FALSE(watch.add(20, true));
  EXPECT_FALSE(watch.add(20, true));
  EXPECT_TRUE(watch.add(20, true));
  EXPECT_FALSE(watch.add(20, true)) << "it begins to count again";
  EXPECT_DOUBLE_EQ(watch.limit(), 10) << "what is left out is not usual";
}

TEST(GradientWatch, MayBeOff) {
  GradientWatch watch(0);
  for (int i = 0; i < 20; ++i) watch.add(2, false);
  EXPECT_EQ(watch.limit(), 0);
}

}  // namespace
}  // namespace rollcall
