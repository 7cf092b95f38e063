// SPDX-License-Identifier: Apache-2.0
#include "trainer/replay_comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "trainer/metric_names.h"

namespace rollcall {
namespace {

const double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(ReplayComparison, FindsTheFirstUseThatDiffers) {
  const std::vector<UpdateUse> recorded{{4, 2, 1, 0.5, true}, {6, 2, 0, -0.5, true}};
  EXPECT_TRUE(compare_uses(recorded, recorded).differences.empty());
  EXPECT_EQ(compare_uses(recorded, recorded).compared, 9);

  auto replayed = recorded;
  replayed[1].advantage = std::nextafter(-0.5, 0);
  const auto found = compare_uses(recorded, replayed).differences;
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].what, "advantage of row 6");
  EXPECT_EQ(found[0].recorded, "-0.5");
  EXPECT_EQ(std::stod(found[0].replayed), replayed[1].advantage) << "written to the bit";

  replayed.pop_back();
  EXPECT_EQ(compare_uses(recorded, replayed).differences.at(0).what, "rollouts");
}

TEST(ReplayComparison, ComparesNumbersThatBothHaveAndLeavesTheClockAlone) {
  const MetricsLine line{3,
                         0,
                         {{metric::kLoss, 1.5},
                          {metric::kGradNormL2, kNaN},
                          {metric::kSecondsStep, 2},
                          {metric::kWorkers, 3}}};
  const MetricList same{{metric::kGradNormL2, std::numeric_limits<double>::infinity()},
                        {metric::kLoss, 1.5},
                        {metric::kSecondsStep, 9},
                        {metric::kWorkers, 0},
                        {"new", 1}};
  EXPECT_EQ(compare_metrics(line, same).compared, 2)
      << "loss and norm, null being what is no number";
  EXPECT_TRUE(compare_metrics(line, same).differences.empty());
  const auto found = compare_metrics(line, {{metric::kLoss, 1.25}}).differences;
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].what + found[0].recorded + found[0].replayed, "loss1.51.25");
}

TEST(ReplayComparison, ComparesStatesToTheBit) {
  TrainState recorded;
  recorded.sampler = "s";
  recorded.policy = {0, {{1, 2, 3}}, {{0, 0, 0}}, {{0, 0, 0}}};
  recorded.critic = CriticState{{1, {{1}}, {{1}}, {{1}}}, {1, {{2}}, {{2}}, {{2}}}};
  TrainState replayed = recorded;
  replayed.journal_rows = 7;
  EXPECT_TRUE(compare_states(recorded, replayed).differences.empty());
  replayed.policy.masters = {{1, 2.5F, 3.5F}};
  replayed.policy.first_moment = {{-0.0F, 0, 0}};
  replayed.critic->head.masters = {{5}};
  replayed.sampler = "t";
  const auto found = compare_states(recorded, replayed).differences;
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[0].what, "state of the batch");
  EXPECT_EQ(found[1].what, "weights (2 of 3 differ, the first is number 1)");
  EXPECT_EQ(found[1].replayed, "2.5");
  EXPECT_EQ(found[2].what, "weights, first moment (1 of 3 differ, the first is number 0)");
  EXPECT_EQ(found[3].what, "critic's head (1 of 1 differ, the first is number 0)");
}

}  // namespace
}  // namespace rollcall
