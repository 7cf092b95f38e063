// SPDX-License-Identifier: Apache-2.0
#include "trainer/value_learner.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "comms/communicator.h"
#include "copied_weights.h"
#include "tiny_model.h"
#include "trainer/critic.h"
#include "trainer/learner.h"

namespace rollcall {
namespace {

// AdamW whose step is the gradient itself, but for its sign: lr * g / (|g| + epsilon).
constexpr AdamWOptions kPlainGradient{1e6, 0, 0, 1e6, 0};
constexpr AdamWOptions kUsual{1e-2, 0.9, 0.95, 1e-8, 0};

const auto kNothing = [] {};

class ValueLearnerTest : public testing::Test {
 protected:
  ValueLearnerTest() {
    for (int s = 0; s < 4; ++s) {
      auto& tokens = tokens_[s];
      for (int i = 0; i < 6; ++i) tokens.push_back((s < 2 ? 11 : 23) + i);
      for (int i = 0; i < 4 + s; ++i) tokens.push_back((s * 13 + i * 7) % 90);
      is_action_[s].assign(tokens.size(), 0);
      for (std::size_t i = 6; i < tokens.size(); i += s % 2 == 0 ? 1 : 2) is_action_[s][i] = 1;
      logprobs_[s].assign(tokens.size(), -2.0f);
      sequences_.push_back({tokens, is_action_[s], logprobs_[s], 6, s < 2 ? 0 : 1});
    }
    batches_ = pack_sequences(sequences_, 1000);
  }

  std::unique_ptr<ValueLearner> own(std::uint64_t seed = 5) {
    return std::make_unique<ValueLearner>(tiny_spec(), TinyModel(seed).weights, *alone_,
                                          at::kFloat);
  }

  // Returns 0 and 1 in turn, by the token.
  ValueTargets targets(ValueLearner& critic) {
    ValueTargets result;
    result.old_values = critic.values(batches_, kNothing);
    for (const PackedBatch& batch : batches_) {
      result.returns.push_back((batch.targets % 2).to(at::kFloat));
      result.tokens += static_cast<double>(batch.targets.numel());
    }
    return result;
  }

  static CriticState copied_state(ValueLearner& critic) {
    const CriticState state = critic.state();
    return {copied(state.trunk), copied(state.head)};
  }

  static CriticState with_head(ValueLearner& critic) {
    CriticState state = copied_state(critic);
    std::vector<float> head(state.head.masters.size());
    for (std::size_t i = 0; i < head.size(); ++i) head[i] = 0.1F * std::sin(static_cast<float>(i));
    state.head.masters = head;
    return state;
  }

  static void expect_same_masters(ValueLearner& critic, const CriticState& expected) {
    const CriticState state = critic.state();
    EXPECT_EQ(copied(state.trunk.masters), copied(expected.trunk.masters));
    EXPECT_EQ(copied(state.head.masters), copied(expected.head.masters));
  }

  double loss(ValueLearner& critic) {
    const auto values = critic.values(batches_, kNothing);
    const ValueTargets wanted = targets(critic);
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i)
      sum += value_loss(values[i].to(at::kDouble), values[i].to(at::kDouble),
                        wanted.returns[i].to(at::kDouble), 0, wanted.tokens)
                 .item<double>();
    return sum;
  }

  std::unique_ptr<Communicator> alone_ = make_single_communicator();
  std::vector<std::int32_t> tokens_[4];
  std::vector<std::uint8_t> is_action_[4];
  std::vector<float> logprobs_[4];
  std::vector<TrainSequence> sequences_;
  std::vector<PackedBatch> batches_;
};

TEST_F(ValueLearnerTest, BeginsAtZeroAndLearns) {
  const auto critic = own();
  for (const at::Tensor& values : critic->values(batches_, kNothing))
    EXPECT_TRUE(at::equal(values, at::zeros_like(values)));
  const double before = loss(*critic);
  const ValueUpdateOptions options{kUsual, 1.0, 0.0};
  EXPECT_NEAR(critic->update(batches_, targets(*critic), options, kNothing).loss, before, 1e-6);
  for (int i = 0; i < 20; ++i) critic->update(batches_, targets(*critic), options, kNothing);
  EXPECT_LT(loss(*critic), 0.3 * before);
}

TEST_F(ValueLearnerTest, StepsByTheGradientOfTheValueLoss) {
  const auto critic = own();
  const CriticState start = with_head(*critic);
  critic->restore(start);
  critic->update(batches_, targets(*critic), {kPlainGradient, 0, 0}, kNothing);
  const CriticState end = copied_state(*critic);
  const auto difference = [&](OptimizedWeights CriticState::*part, std::size_t at) {
    constexpr float kStepSize = 2e-3F;
    double losses[2];
    for (int sign : {0, 1}) {
      CriticState moved = start;
      std::vector<float> masters = copied((moved.*part).masters);
      masters[at] += sign == 0 ? -kStepSize : kStepSize;
      (moved.*part).masters = masters;
      critic->restore(moved);
      losses[sign] = loss(*critic);
    }
    return (losses[1] - losses[0]) / (2 * kStepSize);
  };
  int compared = 0;
  for (const auto part : {&CriticState::trunk, &CriticState::head}) {
    const auto &from = (start.*part).masters, &to = (end.*part).masters;
    for (std::size_t i = 0; i<from.size(); i += from.size()> 1000 ? 397 : 5) {
      const double gradient = static_cast<double>(from[i]) - to[i];
      if (std::abs(gradient) < 1e-3) continue;  // lost in float32's rounding
      ++compared;
      EXPECT_NEAR(difference(part, i), gradient, 0.03 * std::abs(gradient) + 2e-4) << i;
    }
  }
  EXPECT_GT(compared, 20);
}

TEST_F(ValueLearnerTest, PullsAtTheStatesByAShareOfItsGradient) {
  TinyModel policy(5);
  Learner learner(policy.spec, policy.weights, policy.spec.vocab_size, *alone_);
  ValueLearner critic(learner.trunk(), *alone_);
  critic.restore(with_head(critic));
  const ValueTargets wanted = targets(critic);
  critic.begin(wanted, {kUsual, 1.0, 0.0});
  learner.trunk().bind();
  const at::Tensor hidden = learner.trunk().hidden(batches_[0]).detach().requires_grad_(true);
  critic.pull(0, hidden, 0.5).backward();
  const SharedFloats head = critic.state().head.masters;
  const at::Tensor error = wanted.old_values[0] - wanted.returns[0];
  for (std::int64_t n = 0; n < error.numel(); ++n)
    for (std::int64_t k = 0; k < 40; ++k)
      EXPECT_NEAR(hidden.grad()[n][k].item<double>(),
                  0.5 * error[n].item<double>() / wanted.tokens * head[static_cast<std::size_t>(k)],
                  1e-7);
  EXPECT_FALSE(critic.pull(0, hidden, 0).defined());
  EXPECT_GT(critic.finish().grad_norm_l2, 0);
}

TEST_F(ValueLearnerTest, LeavesThePolicyAloneUnlessItPulls) {
  TinyModel policy(5);
  Learner learner(policy.spec, policy.weights, policy.spec.vocab_size, *alone_);
  ValueLearner critic(learner.trunk(), *alone_);
  const at::Tensor before = learner.masters().flat.clone();
  for (int i = 0; i < 3; ++i)
    critic.update(batches_, targets(critic), {kUsual, 1.0, 0.0}, kNothing);
  EXPECT_LT(loss(critic), 0.2);
  EXPECT_TRUE(at::equal(learner.masters().flat, before));

  const ValueTargets wanted = targets(critic);
  const auto zero = [](std::size_t, const TokenLogprobs& current) {
    return current.logprobs.sum() * 0;
  };
  critic.begin(wanted, {kUsual, 1.0, 0.0});
  const UpdateStats stats =
      learner.update(batches_, zero, {kUsual}, kNothing,
                     [&](std::size_t i, const at::Tensor& h) { return critic.pull(i, h, 1); });
  critic.finish();
  EXPECT_EQ(stats.loss, 0);
  EXPECT_GT(stats.grad_norm_l2, 0);
  EXPECT_FALSE(at::equal(learner.masters().flat, before));
}

TEST_F(ValueLearnerTest, ComputesTheSameUpdateHoweverItIsPacked) {
  const auto outcome = [&](std::int64_t max_tokens) {
    batches_ = pack_sequences(sequences_, max_tokens);
    const auto critic = own();
    critic->restore(with_head(*critic));
    return critic->update(batches_, targets(*critic), {kUsual, 1.0, 0.0}, kNothing);
  };
  const ValueStats whole = outcome(1000), parts = outcome(20);
  EXPECT_GE(batches_.size(), 2u);
  EXPECT_NEAR(parts.loss, whole.loss, 1e-6);
  EXPECT_NEAR(parts.grad_norm_l2, whole.grad_norm_l2, 1e-4 * whole.grad_norm_l2);
}

TEST_F(ValueLearnerTest, GoesOnBitForBitFromItsState) {
  const auto straight = own(5), resumed = own(6);
  const auto step = [&](ValueLearner& critic) {
    critic.update(batches_, targets(critic), {kUsual, 1.0, 0.2}, kNothing);
  };
  step(*straight);
  step(*straight);
  const CriticState middle = copied_state(*straight);
  step(*straight);
  ASSERT_TRUE(resumed->fits(middle));
  resumed->restore(middle);
  step(*resumed);
  expect_same_masters(*resumed, straight->state());
  CriticState other = middle;
  other.trunk.masters = SharedFloats(std::span<const float>(other.trunk.masters).subspan(1));
  EXPECT_FALSE(resumed->fits(other));
}

TEST_F(ValueLearnerTest, HoldsValuesWithinTheClip) {
  const auto critic = own();
  const ValueTargets wanted = targets(*critic);  // old values 0
  const ValueUpdateOptions options{kUsual, 1.0, 0.05};
  ValueStats stats;
  for (int i = 0; i < 20; ++i) stats = critic->update(batches_, wanted, options, kNothing);
  EXPECT_GT(stats.clip_fraction, 0.3);
  EXPECT_LE(stats.clip_fraction, 1);
}

TEST_F(ValueLearnerTest, ChangesNothingOnANonFiniteGradient) {
  const auto critic = own();
  ValueTargets wanted = targets(*critic);
  wanted.returns[0] = at::full_like(wanted.returns[0], NAN);
  const CriticState before = copied_state(*critic);
  EXPECT_TRUE(critic->update(batches_, wanted, {kUsual, 1.0, 0.0}, kNothing).skipped);
  expect_same_masters(*critic, before);
}

}  // namespace
}  // namespace rollcall
