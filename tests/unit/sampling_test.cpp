// SPDX-License-Identifier: Apache-2.0
#include "model/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rollcall {
namespace {

TEST(SampleToken, FollowsTheDistribution) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.25f), std::log(0.125f),
                                  std::log(0.125f)};
  std::vector<int> counts(4);
  for (std::uint64_t n = 0; n < 20000; ++n)
    ++counts[static_cast<std::size_t>(sample_token(logits, uniform_draw(9, n)).id)];
  const double expected[] = {10000, 5000, 2500, 2500};
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_NEAR(counts[i], expected[i], 5 * std::sqrt(expected[i]));
}

// More ids than are summed at a time, and a count that divides nothing.
TEST(SampleToken, FindsItsPlaceAmongManyIds) {
  const std::vector<float> equal(1001, 3);
  for (std::uint64_t n = 0; n < 2000; ++n) {
    const double uniform = uniform_draw(11, n);
    EXPECT_EQ(sample_token(equal, uniform).id, static_cast<std::int32_t>(uniform * 1001));
  }
  std::vector<float> rare(1001, -std::numeric_limits<float>::infinity());
  rare[300] = rare[301] = rare[900] = 0;
  EXPECT_EQ(sample_token(rare, 0).id, 300);
  EXPECT_EQ(sample_token(rare, 0.34).id, 301);
  EXPECT_EQ(sample_token(rare, 0.67).id, 900);
  EXPECT_EQ(sample_token(rare, 0x1.fffffffffffffp-1).id, 900);
}

TEST(SampleToken, ReturnsTheLogProbabilityOfWhatItDrew) {
  const std::vector<float> logits{1, 2, 3};
  const auto token = sample_token(logits, 0.999999);
  EXPECT_EQ(token.id, 2);
  EXPECT_NEAR(token.logprob, 3 - std::log(std::exp(1) + std::exp(2) + std::exp(3)), 1e-6);
}

TEST(SampleToken, NeverDrawsAnImpossibleToken) {
  const std::vector<float> logits{0, -1000, 0, -1000};
  for (std::uint64_t n = 0; n < 1000; ++n)
    EXPECT_EQ(sample_token(logits, uniform_draw(3, n)).id % 2, 0);
  EXPECT_EQ(sample_token(logits, 0x1.fffffffffffffp-1).id, 2);
}

}  // namespace
}  // namespace rollcall
