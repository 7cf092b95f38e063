// SPDX-License-Identifier: Apache-2.0
#include "trainer/advantages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "comms/error.h"

namespace rollcall {
namespace {

using Groups = std::vector<std::vector<double>>;
using testing::DoubleNear;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pointwise;

// Those that compare a rollout with its group.
std::vector<AdvantageKind> all_kinds() {
  std::vector<AdvantageKind> kinds;
  for (std::string_view name : advantage_names())
    if (name != "gae") kinds.push_back(advantage_kind(std::string(name)));
  return kinds;
}

Groups advantages_of(const Groups& rewards, AdvantageKind kind) {
  return group_advantages(rewards, {.kind = kind, .k = 1});
}

std::vector<double> one_success_of_four(AdvantageKind kind) {
  const Groups rewards{{1, 0, 0, 0}};
  return group_advantages(rewards, {.kind = kind, .k = 2, .eps = 0}).front();
}

TEST(Advantages, MatchTheHandComputedGroupOfOneSuccessInFour) {
  const double third = 1.0 / 3;
  EXPECT_THAT(one_success_of_four(AdvantageKind::kRloo),
              Pointwise(DoubleNear(1e-15), {1.0, -third, -third, -third}));
  EXPECT_THAT(one_success_of_four(AdvantageKind::kDrGrpo), ElementsAre(.75, -.25, -.25, -.25));
  EXPECT_THAT(one_success_of_four(AdvantageKind::kGrpoStd), ElementsAre(1.5, -.5, -.5, -.5));
  EXPECT_THAT(one_success_of_four(AdvantageKind::kMaxRl), ElementsAre(3, -1, -1, -1));
  EXPECT_THAT(one_success_of_four(AdvantageKind::kPassK),
              Pointwise(DoubleNear(1e-15), {1.0, -third, -third, -third}));
}

TEST(Advantages, DoNotChangeWhenAllRewardsAreShifted) {
  const Groups rewards{{1, 0, 0.5, 0}, {0.25, 0.75}, {1, 1, 1}};
  Groups shifted = rewards;
  for (auto& group : shifted) {
    for (double& reward : group) reward += 16;
  }
  for (AdvantageKind kind : all_kinds()) {
    // Relative to the mean, and counting successes: not shift invariant.
    if (kind == AdvantageKind::kMaxRl || kind == AdvantageKind::kPassK) continue;
    const Groups before = advantages_of(rewards, kind), after = advantages_of(shifted, kind);
    for (std::size_t g = 0; g < rewards.size(); ++g) {
      EXPECT_THAT(after[g], Pointwise(DoubleNear(1e-12), before[g])) << g;
    }
  }
}

TEST(Advantages, FollowTheirRolloutWhenAGroupIsPermuted) {
  const Groups rewards{{1, 0.5, 0.25, 0}, {0, 1}};
  Groups reversed = rewards;
  std::reverse(reversed[0].begin(), reversed[0].end());
  for (AdvantageKind kind : all_kinds()) {
    Groups expected = advantages_of(rewards, kind);
    std::reverse(expected[0].begin(), expected[0].end());
    EXPECT_THAT(advantages_of(reversed, kind)[0], Pointwise(DoubleNear(1e-12), expected[0]));
  }
}

TEST(Advantages, SumToZeroInEveryGroup) {
  const Groups rewards{{1, 0.5, 0.25, 0}, {0, 1}, {0.125, 0.5, 0.5}};
  for (AdvantageKind kind : all_kinds()) {
    for (const auto& group : advantages_of(rewards, kind)) {
      EXPECT_NEAR(std::accumulate(group.begin(), group.end(), 0.0), 0, 1e-12);
    }
  }
}

// Of four rollouts and k = 2, by listing all six pairs: two successes are in five of them.
TEST(PassKAdvantages, AreMeansOverTheSubsetsThatHoldARollout) {
  const Groups rewards{{1, 1, 0, 0}};
  const double mean = 5.0 / 6, deviation = std::sqrt(mean * (1 - mean));
  const double success = (1 - mean) / deviation, failure = (2.0 / 3 - mean) / deviation;
  EXPECT_THAT(group_advantages(rewards, {.kind = AdvantageKind::kPassK, .k = 2})[0],
              Pointwise(DoubleNear(1e-15), {success, success, failure, failure}));
}

TEST(PassKAdvantages, ForOneRolloutDivideByTheDeviationOfAll) {
  const Groups rewards{{1, 0, 0, 0, 0}};
  EXPECT_THAT(group_advantages(rewards, {.kind = AdvantageKind::kPassK, .k = 1})[0],
              Pointwise(DoubleNear(1e-15), {2.0, -0.5, -0.5, -0.5, -0.5}));
}

TEST(PassKAdvantages, AreZeroWhereEverySubsetOrNoneSucceeds) {
  const Groups rewards{{1, 1, 1, 0}, {1, 0}, {1, 0, 0}, {0.4, 0.3, 0, 0}};
  for (const auto& group : group_advantages(rewards, {.kind = AdvantageKind::kPassK, .k = 3}))
    EXPECT_THAT(group, Each(0.0));
}

TEST(Advantages, AreZeroForGroupsWithoutSignal) {
  const Groups rewards{{0.1, 0.1, 0.1}, {1}, {}, {0, 1}};
  for (AdvantageKind kind : all_kinds()) {
    const Groups advantages = advantages_of(rewards, kind);
    EXPECT_THAT(advantages[0], Each(0.0));
    EXPECT_THAT(advantages[1], ElementsAre(0.0));
    EXPECT_TRUE(advantages[2].empty());
    EXPECT_NE(advantages[3][0], 0.0);
  }
}

TEST(Advantages, RefuseARewardThatIsNotANumber) {
  const Groups rewards{{1, std::numeric_limits<double>::quiet_NaN()}};
  EXPECT_THROW(advantages_of(rewards, AdvantageKind::kRloo), Error);
}

TEST(Advantages, OfAGroupAreNotACritics) {
  EXPECT_EQ(advantage_kind("gae"), AdvantageKind::kGae);
  EXPECT_THROW(advantages_of({{1, 0}}, AdvantageKind::kGae), Error);
}

TEST(Advantages, ListTheNamesWhenOneIsUnknown) {
  try {
    advantage_kind("gaae");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr("'gaae'"));
    EXPECT_THAT(error.what_to_do(), HasSubstr("rloo_batch_std"));
  }
}

TEST(Signal, IsThereWhenTwoRewardsDiffer) {
  EXPECT_TRUE(has_signal(std::vector<double>{0, 0, 1}));
  EXPECT_FALSE(has_signal(std::vector<double>{0.5, 0.5}));
  EXPECT_FALSE(has_signal(std::vector<double>{}));
}

}  // namespace
}  // namespace rollcall
