// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_values.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "comms/communicator.h"
#include "trainer/critic.h"

namespace rollcall {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pointwise;

std::vector<double> numbers(const std::vector<at::Tensor>& tensors) {
  std::vector<double> all;
  for (const at::Tensor& t : tensors) {
    const at::Tensor wide = t.to(at::kDouble);
    all.insert(all.end(), wide.const_data_ptr<double>(),
               wide.const_data_ptr<double>() + wide.numel());
  }
  return all;
}

// Three sequences of two prompts, one with a tool's tokens in its middle. V is a function of the
// target, so that it does not depend on the packing.
class StepValuesTest : public testing::Test {
 protected:
  StepValuesTest() {
    for (const auto& s : {std::vector<int>{1, 0, 0, 1}, {1, 1}, {1, 1, 1}}) {
      const std::size_t i = sequences_.size();
      auto& tokens = tokens_[i];
      tokens = {7, 8};
      is_action_[i] = {0, 0};
      for (const int action : s) {
        tokens.push_back(static_cast<std::int32_t>(10 * i + tokens.size()));
        is_action_[i].push_back(static_cast<std::uint8_t>(action));
      }
      logprobs_[i].resize(tokens.size());
      sequences_.push_back(
          {tokens, is_action_[i], logprobs_[i], 2, i < 2 ? 0 : 1, 0, i == 1 ? 0.0 : 1.0});
    }
  }

  StepValues of(std::int64_t max_tokens, bool policy_learns = true) {
    const auto batches = pack_sequences(sequences_, max_tokens);
    batches_ = batches.size();
    std::vector<at::Tensor> values;
    for (const PackedBatch& batch : batches)
      values.push_back((batch.targets.to(at::kFloat)) * 0.01);
    return step_values(batches, sequences_, values, options_, policy_learns, *alone_);
  }

  std::unique_ptr<Communicator> alone_ = make_single_communicator();
  std::vector<std::int32_t> tokens_[3];
  std::vector<std::uint8_t> is_action_[3];
  std::vector<float> logprobs_[3];
  std::vector<TrainSequence> sequences_;
  CriticOptions options_;
  std::size_t batches_ = 0;
};

// Values 0.02 0.05 | 0.12 0.13 | 0.22 0.23 0.24, rewards 1, 0, 1.
TEST_F(StepValuesTest, WhitensWhatRewardsExceedValuesBy) {
  options_.lambda_policy = 1;
  const StepValues step = of(1000);
  const std::vector<double> plain{0.98, 0.95, -0.12, -0.13, 0.78, 0.77, 0.76};
  double mean = 0, squares = 0;
  for (const double a : plain) mean += a / 7;
  for (const double a : plain) squares += (a - mean) * (a - mean);
  std::vector<double> white;
  for (const double a : plain) white.push_back((a - mean) / (std::sqrt(squares / 6) + 1e-6));
  EXPECT_THAT(numbers(step.advantages), Pointwise(DoubleNear(1e-5), white));
  EXPECT_THAT(numbers(step.targets.returns), ElementsAre(1, 1, 0, 0, 1, 1, 1));
  EXPECT_EQ(step.targets.tokens, 7);
  EXPECT_NEAR(step.sequence_advantages[1], (white[2] + white[3]) / 2, 1e-6);
  EXPECT_NEAR(step.return_mean, 5.0 / 7, 1e-9);
  const std::vector<double> values = numbers(step.targets.old_values);
  EXPECT_NEAR(step.explained_variance, explained_variance(values, numbers(step.targets.returns)),
              1e-6);
}

TEST_F(StepValuesTest, SkipsTheTokensOfATool) {
  options_.lambda_policy = options_.lambda_critic = 0;
  // One token ahead: the next action token's value, past the tool, or the reward.
  EXPECT_THAT(numbers(of(1000).targets.returns),
              Pointwise(DoubleNear(1e-6), {0.05, 1.0, 0.13, 0.0, 0.23, 0.24, 1.0}));
}

TEST_F(StepValuesTest, TakesMonteCarloReturnsBeforeThePolicyLearns) {
  options_.lambda_critic = 0;
  EXPECT_THAT(numbers(of(1000, false).targets.returns), ElementsAre(1, 1, 0, 0, 1, 1, 1));
}

TEST_F(StepValuesTest, DecouplesLambdaByTheLengthOfTheAnswer) {
  options_.lambda_policy = 0;
  const auto none = numbers(of(1000).advantages);
  options_.lambda_policy.reset();  // under 20 tokens: 0
  EXPECT_EQ(numbers(of(1000).advantages), none);
}

TEST_F(StepValuesTest, DoesNotDependOnTheMicroBatches) {
  options_.gamma = 0.9;
  options_.lambda_policy = 0.8;
  const StepValues whole = of(1000), parts = of(5);
  ASSERT_GE(batches_, 2u);
  EXPECT_THAT(numbers(parts.advantages), Pointwise(DoubleNear(1e-6), numbers(whole.advantages)));
  EXPECT_THAT(numbers(parts.targets.returns),
              Pointwise(DoubleNear(1e-6), numbers(whole.targets.returns)));
  EXPECT_NEAR(parts.explained_variance, whole.explained_variance, 1e-9);
}

TEST_F(StepValuesTest, GiveThePolicyNothingWhereAllRewardsAreEqual) {
  for (const double reward : {0.0, 0.1}) {
    for (TrainSequence& s : sequences_) s.reward = reward;
    const StepValues step = of(5);
    EXPECT_THAT(numbers(step.advantages), testing::Each(0.0));
    EXPECT_THAT(numbers(step.targets.returns), testing::Each(static_cast<float>(reward)));
    EXPECT_NEAR(step.explained_variance, 0, 1e-6);
  }
  EXPECT_EQ(step_values({}, {}, {}, options_, true, *alone_).targets.tokens, 0);
}

}  // namespace
}  // namespace rollcall
