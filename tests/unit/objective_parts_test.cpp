// SPDX-License-Identifier: Apache-2.0
// KL estimators, the distance of two policies, the critic, and formulas over counts.
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "comms/error.h"
#include "trainer/counting.h"
#include "trainer/critic.h"
#include "trainer/kl.h"
#include "trainer/mismatch.h"

namespace rollcall {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pointwise;

double kl_of(KlKind kind, double log_ratio) {
  return kl_terms(kind, at::tensor({log_ratio - 1}, at::kDouble), at::tensor({-1.0}, at::kDouble))
      .item()
      .toDouble();
}

TEST(Kl, EstimatesAtOneTenth) {
  EXPECT_NEAR(kl_of(KlKind::kK1, 0.1), 0.1, 1e-12);
  EXPECT_NEAR(kl_of(KlKind::kK2, 0.1), 0.005, 1e-12);
  EXPECT_NEAR(kl_of(KlKind::kK3, 0.1), 0.004837418, 1e-9);
}

TEST(Kl, IsZeroForEqualPoliciesAndNeverNegativeForK2AndK3) {
  for (KlKind kind : {KlKind::kK1, KlKind::kK2, KlKind::kK3}) EXPECT_EQ(kl_of(kind, 0), 0);
  for (double d : {-30.0, -1.0, -0.01, 0.01, 1.0, 30.0}) {
    EXPECT_GT(kl_of(KlKind::kK2, d), 0);
    EXPECT_GT(kl_of(KlKind::kK3, d), 0);
    EXPECT_TRUE(std::isfinite(kl_of(KlKind::kK3, d)));
  }
}

// Over all tokens of a small vocabulary, weighted with the current policy, k1 and k3 are the KL.
TEST(Kl, K1AndK3AreUnbiased) {
  const std::vector<double> p{0.5, 0.3, 0.2}, q{0.2, 0.2, 0.6};
  double kl = 0, k1 = 0, k3 = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double d = std::log(p[i] / q[i]);
    kl += p[i] * d;
    k1 += p[i] * kl_of(KlKind::kK1, d);
    k3 += p[i] * kl_of(KlKind::kK3, d);
  }
  EXPECT_NEAR(k1, kl, 1e-12);
  EXPECT_NEAR(k3, kl, 1e-12);
}

// What each form pulls at, over all tokens of a small vocabulary: k2, and k1 in the reward, have
// the gradient of KL(current, reference); k3 as a loss that of KL(reference, current).
TEST(Kl, FormsHaveTheGradientsThatAreSaidOfThem) {
  const at::Tensor logits = at::tensor({0.4, -0.3, 0.1}, at::kDouble).requires_grad_();
  const at::Tensor reference = at::log_softmax(at::tensor({-0.5, 0.2, 0.6}, at::kDouble), 0);
  const auto gradient = [&](const auto& loss) {
    const at::Tensor current = at::log_softmax(logits, 0);
    logits.mutable_grad() = at::Tensor();
    loss(current).sum().backward();
    return logits.grad().clone();
  };
  const auto sampled = [&](KlKind kind) {
    return gradient([&](const at::Tensor& current) {
      return current.detach().exp() * kl_terms(kind, current, reference);
    });
  };
  const at::Tensor reverse =
      gradient([&](const at::Tensor& current) { return current.exp() * (current - reference); });
  const at::Tensor forward =
      gradient([&](const at::Tensor& current) { return reference.exp() * (reference - current); });
  const at::Tensor in_reward = gradient([&](const at::Tensor& current) {
    const at::Tensor price = kl_terms(KlKind::kK1, current, reference).detach();
    return current.detach().exp() * price * current;
  });
  EXPECT_TRUE(at::allclose(sampled(KlKind::kK2), reverse, 0, 1e-12));
  EXPECT_TRUE(at::allclose(in_reward, reverse, 0, 1e-12));
  EXPECT_TRUE(at::allclose(sampled(KlKind::kK3), forward, 0, 1e-12));
  EXPECT_FALSE(at::allclose(forward, reverse, 0, 1e-3));
}

TEST(Mismatch, IsAsComputedByHand) {
  const Mismatch m =
      measure_mismatch(at::tensor({std::log(2.0), 0.0, -std::log(2.0)}, at::kDouble));
  const double log2 = std::log(2.0);
  EXPECT_NEAR(m.gap_mean(), 2 * log2 / 3, 1e-12);
  EXPECT_NEAR(m.gap_max, log2, 1e-12);
  EXPECT_NEAR(m.ratio_mean(), 3.5 / 3, 1e-12);
  EXPECT_NEAR(m.k3_mean(), 0.5 / 3, 1e-12);
  EXPECT_NEAR(m.chi2_mean(), (3 - 0.75) / 3, 1e-12);
  EXPECT_NEAR(m.ess_fraction(), 3.5 * 3.5 / (3 * 5.25), 1e-12);
}

TEST(Mismatch, AddsUpOverMicroBatches) {
  std::mt19937_64 source(4);
  std::normal_distribution<double> normal;
  std::vector<double> values(50);
  for (double& value : values) value = 0.3 * normal(source);
  values[3] = 2;  // the largest is not in the last part
  const at::Tensor all = at::tensor(values, at::kDouble);
  const Mismatch whole = measure_mismatch(all);
  Mismatch parts = measure_mismatch(all.slice(0, 0, 7));
  parts.add(measure_mismatch(all.slice(0, 7, 7)));
  parts.add(measure_mismatch(all.slice(0, 7, 50)));
  EXPECT_NEAR(parts.k3_mean(), whole.k3_mean(), 1e-12);
  EXPECT_NEAR(parts.chi2_mean(), whole.chi2_mean(), 1e-12);
  EXPECT_NEAR(parts.ess_fraction(), whole.ess_fraction(), 1e-12);
  EXPECT_EQ(parts.gap_max, whole.gap_max);
}

TEST(Mismatch, OfEqualPoliciesAndOfNothingIsNone) {
  for (const Mismatch& m : {measure_mismatch(at::tensor({0.f, 0.f})), Mismatch{}}) {
    EXPECT_EQ(m.gap_mean(), 0);
    EXPECT_EQ(m.k3_mean(), 0);
    EXPECT_EQ(m.chi2_mean(), 0);
    EXPECT_EQ(m.ess_fraction(), 1);
  }
}

TEST(Gae, CarriesARewardOverToolTokens) {
  const std::vector<double> rewards{0, 0, 0, 0, 1}, values(5, 0.0);
  const std::vector<std::uint8_t> is_action{1, 0, 0, 1, 1};
  const auto result = generalized_advantages(rewards, values, is_action, 1, 1);
  EXPECT_THAT(result.advantages, ElementsAre(1, 0, 0, 1, 1));
  EXPECT_THAT(result.returns, ElementsAre(1, 0, 0, 1, 1));
}

TEST(Gae, IsAsComputedByHand) {
  const std::vector<double> rewards{0, 7, 1}, values{0.5, 9, 0.25};
  const auto result =
      generalized_advantages(rewards, values, std::vector<std::uint8_t>{1, 0, 1}, 0.9, 0.8);
  const double last = 1 - 0.25, first = 0.9 * 0.25 - 0.5 + 0.9 * 0.8 * last;
  EXPECT_THAT(result.advantages, Pointwise(DoubleNear(1e-12), {first, 0.0, last}));
  EXPECT_THAT(result.returns, Pointwise(DoubleNear(1e-12), {first + 0.5, 0.0, 1.0}));
}

TEST(Gae, DoesNotSeeWhatToolTokensHold) {
  const std::vector<std::uint8_t> is_action{1, 0, 1, 0};
  const auto a = generalized_advantages(std::vector<double>{0, 0, 1, 0},
                                        std::vector<double>{.1, .2, .3, .4}, is_action, .99, .9);
  const auto b = generalized_advantages(std::vector<double>{0, 5, 1, 6},
                                        std::vector<double>{.1, 7, .3, 8}, is_action, .99, .9);
  EXPECT_EQ(a.advantages, b.advantages);
}

TEST(Gae, RefusesArraysThatDoNotFit) {
  EXPECT_THROW(generalized_advantages(std::vector<double>{1}, std::vector<double>{}, {}, 1, 1),
               Error);
}

TEST(DecoupledLambda, GrowsWithTheAnswerFromZero) {
  EXPECT_EQ(decoupled_lambda(0), 0);
  EXPECT_EQ(decoupled_lambda(10), 0);
  EXPECT_NEAR(decoupled_lambda(40), 0.5, 1e-12);
  EXPECT_NEAR(decoupled_lambda(2000), 0.99, 1e-12);
}

TEST(ValueLoss, TakesTheWorseOfClippedAndFree) {
  at::Tensor values = at::tensor({1.0, 0.0, 0.1}, at::kDouble).set_requires_grad(true);
  const at::Tensor old_values = at::tensor({0.5, 0.5, 0.0}, at::kDouble);
  const at::Tensor returns = at::tensor({1.0, 1.0, 0.0}, at::kDouble);
  const at::Tensor loss = value_loss(values, old_values, returns, 0.2, 3);
  // Clipped to 0.7: 0.09 against 0. Then 1 against 0.49, and 0.01 twice.
  EXPECT_NEAR(loss.item().toDouble(), 0.5 * (0.09 + 1 + 0.01) / 3, 1e-12);
  loss.backward();
  EXPECT_EQ(values.grad()[0].item().toDouble(), 0);
  EXPECT_NEAR(values.grad()[1].item().toDouble(), -1.0 / 3, 1e-12);
  EXPECT_NEAR(value_loss(values, old_values, returns, 0, 3).item().toDouble(),
              0.5 * (0 + 1 + 0.01) / 3, 1e-12);
  EXPECT_EQ(value_loss(values, old_values, returns, 0, 0).item().toDouble(), 0);
}

TEST(ValueLoss, CountsTheTokensThatTheClipHoldsBack) {
  const at::Tensor values = at::tensor({1.0, 0.0, 0.1}, at::kDouble);
  const at::Tensor old_values = at::tensor({0.5, 0.5, 0.0}, at::kDouble);
  const at::Tensor returns = at::tensor({1.0, 1.0, 0.0}, at::kDouble);
  EXPECT_EQ(clipped_values(values, old_values, returns, 0.2), 1);
  EXPECT_EQ(clipped_values(values, old_values, returns, 0), 0);
}

TEST(ExplainedVariance, IsOneForAPerfectCriticAndZeroForAConstant) {
  const std::vector<double> returns{0, 1, 0, 1};
  EXPECT_EQ(explained_variance(returns, returns), 1);
  EXPECT_EQ(explained_variance(std::vector<double>(4, 0.7), returns), 0);
  EXPECT_NEAR(explained_variance(std::vector<double>{1, 0, 1, 0}, returns), -3, 1e-12);
  EXPECT_EQ(explained_variance(returns, std::vector<double>(4, 1.0)), 0);
}

TEST(PassAtK, IsTheShareOfSubsetsWithASuccess) {
  EXPECT_NEAR(pass_at_k(4, 1, 2), 0.5, 1e-12);
  EXPECT_EQ(pass_at_k(8, 0, 4), 0);
  EXPECT_EQ(pass_at_k(8, 5, 4), 1);
  EXPECT_NEAR(pass_at_k(10, 3, 1), 0.3, 1e-12);
  EXPECT_THROW(pass_at_k(4, 1, 5), Error);
  EXPECT_THROW(pass_at_k(4, 5, 1), Error);
  EXPECT_THROW(pass_at_k(4, 1, 0), Error);
}

TEST(ExpectedMax, OfBinaryRewardsIsPassAtK) {
  const std::vector<double> rewards{0, 1, 0, 0, 1, 0, 0};
  for (std::int64_t k = 1; k <= 7; ++k)
    EXPECT_NEAR(expected_max(rewards, k), pass_at_k(7, 2, k), 1e-12);
  EXPECT_NEAR(expected_max(std::vector<double>{3, 1, 2}, 2), (2 + 3 + 3) / 3.0, 1e-12);
  EXPECT_THROW(expected_max(rewards, 8), Error);
}

TEST(InformativeProbability, IsAsTabulated) {
  EXPECT_NEAR(informative_probability(0.1, 4), 0.3438, 1e-12);
  EXPECT_EQ(informative_probability(0, 16), 0);
  EXPECT_EQ(informative_probability(0.5, 1), 0);
  EXPECT_NEAR(informative_probability(0.3, 8), informative_probability(0.7, 8), 1e-12);
}

TEST(Signal, CountsGroupsWithBothOutcomes) {
  const std::vector<GroupCount> groups{{0, 8}, {3, 8}, {8, 8}, {1, 1}};
  const Signal signal = signal_of(groups);
  EXPECT_NEAR(signal.mass, 15.0 / 7, 1e-12);
  EXPECT_EQ(signal.informative_groups, 1);
  EXPECT_EQ(signal.minority_count, 3);
}

// E|gradient of b groups|^2 = |G|^2 + noise / b.
TEST(GradientNoiseScale, FindsWhatTheNormsWereMadeOf) {
  const double squared = 2, noise = 30;
  const NoiseScale scale = gradient_noise_scale(8, squared + noise / 8, 64, squared + noise / 64);
  EXPECT_NEAR(scale.gradient_squared, squared, 1e-12);
  EXPECT_NEAR(scale.noise, noise, 1e-12);
  EXPECT_NEAR(scale.groups, noise / squared, 1e-12);
  EXPECT_THROW(gradient_noise_scale(8, 1, 8, 1), Error);
}

TEST(SoftOverlong, FallsLinearlyOverTheTail) {
  EXPECT_EQ(soft_overlong(150, 200, 50), 0);
  EXPECT_NEAR(soft_overlong(160, 200, 50), -0.2, 1e-12);
  EXPECT_EQ(soft_overlong(200, 200, 50), -1);
  EXPECT_EQ(soft_overlong(900, 200, 50), -1);
  EXPECT_THROW(soft_overlong(1, 200, 0), Error);
}

}  // namespace
}  // namespace rollcall
