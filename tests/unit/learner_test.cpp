// SPDX-License-Identifier: Apache-2.0
#include "trainer/learner.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "comms/communicator.h"
#include "comms/error.h"
#include "tiny_model.h"
#include "trainer/losses.h"

namespace rollcall {
namespace {

// Sequences of two prompts with a few action tokens each, storage included.
class LearnerTest : public testing::Test {
 protected:
  LearnerTest() : alone_(make_single_communicator()) {
    for (int s = 0; s < 5; ++s) {
      auto& tokens = tokens_[s];
      for (int i = 0; i < 6; ++i) tokens.push_back((s < 3 ? 11 : 23) + i);  // the prompt
      for (int i = 0; i < 4 + s; ++i) tokens.push_back((s * 13 + i * 7) % 90);
      is_action_[s].assign(tokens.size(), 0);
      for (std::size_t i = 6; i < tokens.size(); i += s % 2 == 0 ? 1 : 2) is_action_[s][i] = 1;
      behavior_[s].assign(tokens.size(), -2.0f);
      sequences_.push_back(
          {tokens, is_action_[s], behavior_[s], 6, s < 3 ? 0 : 1, s % 2 == 0 ? 1.0 : -0.5});
    }
  }

  // Weights after one policy-gradient update packed into micro-batches of `max_tokens`.
  at::Tensor updated(std::int64_t max_tokens, double poison = 1.0, double max_gap = 0) {
    TinyModel model(5);
    Learner learner(model.spec, model.weights, model.spec.vocab_size, *alone_);
    const auto batches = pack_sequences(sequences_, max_tokens);
    const auto denominators = step_denominators(batches, *alone_);
    batches_ = batches.size();
    stats_ = learner.update(
        batches,
        [&](std::size_t i, const TokenLogprobs& current) {
          return policy_loss(batches[i].actions, current.logprobs, denominators[i], {}).loss *
                 poison;
        },
        {{1e-3, 0.9, 0.95, 1e-8, 0.0}, 1.0, max_gap}, [] {});
    return learner.weights().flat.clone();
  }

  std::unique_ptr<Communicator> alone_;
  std::vector<std::int32_t> tokens_[5];
  std::vector<std::uint8_t> is_action_[5];
  std::vector<float> behavior_[5];
  std::vector<TrainSequence> sequences_;
  std::size_t batches_ = 0;
  UpdateStats stats_;
};

TEST_F(LearnerTest, ComputesTheSameUpdateHoweverItIsPacked) {
  const at::Tensor whole = updated(1000);
  EXPECT_EQ(batches_, 1u);
  const double loss = stats_.loss, norm = stats_.grad_norm_l2;
  updated(20);
  EXPECT_GE(batches_, 2u);
  EXPECT_NEAR(stats_.loss, loss, 1e-5 * std::abs(loss));
  EXPECT_NEAR(stats_.grad_norm_l2, norm, 1e-4 * norm);
}

TEST_F(LearnerTest, GivesTheSameBitsEveryTime) {
  EXPECT_TRUE(at::equal(updated(1000), updated(1000)));
}

TEST_F(LearnerTest, ChangesNothingOnANonFiniteGradient) {
  const at::Tensor after = updated(1000, std::numeric_limits<double>::quiet_NaN());
  EXPECT_TRUE(stats_.skipped);
  EXPECT_TRUE(at::equal(after, TinyModel(5).weights.flat));
}

// The behavior log-probabilities of these sequences are invented, so they are far from the model's.
TEST_F(LearnerTest, RaisesTheAlarmAndChangesNothing) {
  updated(1000);
  const double gap = stats_.mismatch.gap_mean();
  ASSERT_GT(gap, 0.1);
  EXPECT_NO_THROW(updated(1000, 1.0, gap * 1.01));
  TinyModel model(5);
  Learner learner(model.spec, model.weights, model.spec.vocab_size, *alone_);
  const auto batches = pack_sequences(sequences_, 1000);
  const auto loss = [&](std::size_t, const TokenLogprobs& current) {
    return current.logprobs.sum();
  };
  try {
    learner.update(batches, loss, {{1e-3, 0.9, 0.95, 1e-8, 0.0}, 1.0, gap * 0.99}, [] {});
    FAIL() << "no alarm";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kAlarm);
    EXPECT_THAT(error.what(), testing::HasSubstr("alarms.logprob_gap"));
  }
  EXPECT_TRUE(at::equal(learner.weights().flat, TinyModel(5).weights.flat));
}

// Not even by the momentum of earlier steps or by weight decay.
TEST_F(LearnerTest, ChangesNothingOnAGradientOfZero) {
  TinyModel model(5);
  Learner learner(model.spec, model.weights, model.spec.vocab_size, *alone_);
  const auto batches = pack_sequences(sequences_, 1000);
  const auto step = [&](double factor) {
    learner.update(
        batches,
        [&](std::size_t, const TokenLogprobs& current) { return current.logprobs.sum() * factor; },
        {{1e-3, 0.9, 0.95, 1e-8, 0.01}}, [] {});
    return learner.weights().flat.clone();
  };
  const at::Tensor moved = step(1);
  EXPECT_FALSE(at::equal(moved, TinyModel(5).weights.flat));
  EXPECT_TRUE(at::equal(step(0), moved));
  EXPECT_EQ(learner.optimizer_state().steps, 1);
}

TEST_F(LearnerTest, GivesTheLogProbabilitiesThatTheUpdateSees) {
  TinyModel model(5);
  Learner learner(model.spec, model.weights, model.spec.vocab_size, *alone_);
  const auto batches = pack_sequences(sequences_, 20);
  const auto before = learner.logprobs(batches, [] {});
  ASSERT_EQ(before.size(), batches.size());
  learner.update(
      batches,
      [&](std::size_t i, const TokenLogprobs& current) {
        EXPECT_TRUE(at::equal(before[i], current.logprobs.detach()));
        return current.logprobs.sum();
      },
      {}, [] {});
}

TEST_F(LearnerTest, MovesTheWeightsOtherwise) {
  EXPECT_FALSE(at::equal(updated(1000), TinyModel(5).weights.flat));
  EXPECT_FALSE(stats_.skipped);
}

TEST_F(LearnerTest, GoesOnBitForBitFromItsState) {
  TinyModel straight(5), resumed(6);
  const auto batches = pack_sequences(sequences_, 1000);
  const auto denominators = step_denominators(batches, *alone_);
  const auto step = [&](Learner& learner) {
    learner.update(
        batches,
        [&](std::size_t i, const TokenLogprobs& current) {
          return policy_loss(batches[i].actions, current.logprobs, denominators[i], {}).loss;
        },
        {{1e-3, 0.9, 0.95, 1e-8, 0.01}}, [] {});
  };
  Learner a(straight.spec, straight.weights, straight.spec.vocab_size, *alone_);
  step(a);
  const auto state = a.optimizer_state();
  const at::Tensor masters = a.weights().flat.clone();
  step(a);
  Learner b(resumed.spec, resumed.weights, resumed.spec.vocab_size, *alone_);
  b.restore({masters.const_data_ptr<float>(), static_cast<std::size_t>(masters.numel())}, state);
  step(b);
  EXPECT_TRUE(at::equal(a.weights().flat, b.weights().flat));
}

TEST_F(LearnerTest, PacksAPromptOnceForItsMembers) {
  const auto batches = pack_sequences(sequences_, 1000);
  // Two prompts of 6, and what each member needs to predict its last action token.
  EXPECT_EQ(batches[0].tokens.numel(), 2 * 6 + (3 + 4 + 5 + 6 + 7));
  EXPECT_EQ(batches[0].segments.size(), 7u);
}

TEST_F(LearnerTest, LeavesOutASequenceWithoutActionTokens) {
  is_action_[0].assign(is_action_[0].size(), 0);
  const auto batches = pack_sequences(sequences_, 1000);
  EXPECT_EQ(batches[0].sequences, (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_DOUBLE_EQ(step_denominators(batches, *alone_)[0].sequences, 4);
}

}  // namespace
}  // namespace rollcall
