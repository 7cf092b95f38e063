// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <utility>

#include "comms/communicator.h"

namespace rollcall {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pointwise;

// One sequence: its prompt, advantage, and a row {behavior, old} a token.
struct Sample {
  std::int64_t prompt = 0;
  double advantage = 0;
  std::vector<std::pair<float, float>> logprobs;
};

// The second token of the first sequence is far off, and so is all of the third one.
const std::vector<Sample> kStep{{0, 1, {{-1, -1.1f}, {-4, -1}}},
                                {0, -1, {{-2, -2.1f}, {-0.5f, -0.4f}, {-1, -1}}},
                                {1, 2, {{-5, -1}}},
                                {2, -2, {{-1, -0.9f}, {-0.7f, -0.8f}}}};

struct Micro {
  PackedBatch batch;
  at::Tensor old;
};

// Sequences [begin, end) of the step as a micro-batch.
Micro micro(std::size_t begin, std::size_t end) {
  std::vector<float> behavior, old, advantages;
  std::vector<std::int64_t> sequence, prompt;
  Micro result;
  for (std::size_t s = begin; s < end; ++s) {
    if (result.batch.prompts.empty() || result.batch.prompts.back() != kStep[s].prompt)
      result.batch.prompts.push_back(kStep[s].prompt);
    prompt.push_back(static_cast<std::int64_t>(result.batch.prompts.size()) - 1);
    for (const auto& [mu, of_learner] : kStep[s].logprobs) {
      behavior.push_back(mu), old.push_back(of_learner);
      advantages.push_back(static_cast<float>(kStep[s].advantage));
      sequence.push_back(static_cast<std::int64_t>(s - begin));
    }
  }
  result.batch.actions = {at::tensor(behavior), at::tensor(advantages),
                          at::tensor(sequence, at::kLong), at::tensor(prompt, at::kLong)};
  result.old = at::tensor(old);
  return result;
}

constexpr double kFromReference = 0.1;  // nats at every token, where there is a reference

struct Outcome {
  double loss = 0;
  std::vector<double> gradient;
  StepLoss::Stats stats;
};

// The step cut behind the sequences `cuts`.
Outcome outcome(const AlgorithmOptions& algorithm, const std::vector<std::size_t>& cuts,
                Communicator& communicator) {
  std::vector<PackedBatch> batches;
  std::vector<at::Tensor> old, reference;
  std::size_t begin = 0;
  for (const std::size_t end : cuts) {
    const Micro one = micro(begin, end);
    batches.push_back(one.batch);
    old.push_back(one.old);
    if (algorithm.kl_in_loss()) reference.push_back(one.old - kFromReference);
    begin = end;
  }
  StepLoss loss(algorithm, batches, old, reference, communicator);
  Outcome result;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    const at::Tensor current = old[i].clone().set_requires_grad(true);
    const at::Tensor share = loss.share(i, current);
    share.backward();
    result.loss += share.item().toDouble();
    const at::Tensor gradient = current.grad().to(at::kDouble);
    const auto* g = gradient.const_data_ptr<double>();
    result.gradient.insert(result.gradient.end(), g, g + gradient.numel());
  }
  result.stats = loss.stats();
  return result;
}

Outcome outcome(const AlgorithmOptions& algorithm, const std::vector<std::size_t>& cuts = {4}) {
  return outcome(algorithm, cuts, *make_single_communicator());
}

AlgorithmOptions reinforce(std::vector<Correction> corrections, std::string aggregation) {
  AlgorithmOptions options;
  options.loss = "reinforce";
  options.aggregation = std::move(aggregation);
  options.corrections = std::move(corrections);
  return options;
}

TEST(StepLoss, LeavesRejectedTokensOutOfTheDenominators) {
  const auto result = outcome(reinforce({{CorrectionKind::kIcepop, 0.5, 5}}, "token_mean"));
  EXPECT_THAT(result.gradient, Pointwise(DoubleNear(1e-6), {-1.0 / 6, 0.0, 1.0 / 6, 1.0 / 6,
                                                            1.0 / 6, 0.0, 2.0 / 6, 2.0 / 6}));
  EXPECT_EQ(result.stats.tokens_rejected, 2);
}

TEST(StepLoss, LeavesRejectedPromptsOutOfTheDenominators) {
  const auto result = outcome(reinforce({{CorrectionKind::kIcepop, 0.5, 5}}, "prompt_mean"));
  EXPECT_THAT(result.gradient,
              Pointwise(DoubleNear(1e-6), {-0.125, 0.0, 0.125, 0.125, 0.125, 0.0, 0.5, 0.5}));
}

// The gradient of k2 = d^2 / 2 is d, that of k3 = exp(-d) - 1 + d is 1 - exp(-d).
TEST(StepLoss, AddsTheDivergenceOfEachTokenThatIsLeft) {
  const auto icepop = std::vector<Correction>{{CorrectionKind::kIcepop, 0.5, 5}};
  AlgorithmOptions options = reinforce(icepop, "token_mean");
  const auto plain = outcome(options);
  EXPECT_FALSE(plain.stats.reference_kl_mean);
  options.kl.coefficient = 0.5;
  for (const auto& [form, slope] :
       {std::pair{"k2", kFromReference}, {"k3", 1 - std::exp(-kFromReference)}}) {
    options.kl.form = form;
    const auto priced = outcome(options, {2, 4});
    for (std::size_t i = 0; i < plain.gradient.size(); ++i) {
      const bool rejected = i == 1 || i == 5;
      EXPECT_NEAR(priced.gradient[i] - plain.gradient[i], rejected ? 0 : 0.5 * slope / 6, 1e-6);
    }
    EXPECT_NEAR(priced.stats.reference_kl_mean.value(),
                std::exp(-kFromReference) - 1 + kFromReference, 1e-6);
  }
}

TEST(StepLoss, LeavesADivergenceInTheRewardOutOfTheLoss) {
  AlgorithmOptions options = reinforce({}, "token_mean");
  options.kl = {.coefficient = 0.5, .form = "k1_reward"};
  EXPECT_EQ(outcome(options).gradient, outcome(reinforce({}, "token_mean")).gradient);
}

TEST(StepLoss, DoesNotDependOnTheMicroBatches) {
  for (const char* aggregation :
       {"token_mean", "seq_mean_token_mean", "seq_mean_token_sum_const", "prompt_mean"}) {
    for (CorrectionKind kind : {CorrectionKind::kTokenTis, CorrectionKind::kVeto}) {
      const AlgorithmOptions options = reinforce({{kind, 0.5, 5}}, aggregation);
      const Outcome whole = outcome(options);
      for (const auto& cuts : {std::vector<std::size_t>{1, 2, 3, 4}, {2, 4}, {3, 4}}) {
        const Outcome parts = outcome(options, cuts);
        EXPECT_NEAR(parts.loss, whole.loss, 1e-6) << aggregation;
        EXPECT_THAT(parts.gradient, Pointwise(DoubleNear(1e-6), whole.gradient)) << aggregation;
        EXPECT_EQ(parts.stats.tokens_rejected, whole.stats.tokens_rejected);
      }
    }
  }
}

// Another learner that holds `tokens` action tokens, one sequence and one prompt of the step.
class WithAnother : public Communicator {
 public:
  explicit WithAnother(double tokens) : tokens_(tokens) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  void barrier() override {}
  void all_sum(std::span<float>) override {}
  void reduce_scatter_sum(std::span<float>) override {}
  void all_gather(std::span<float>) override {}
  void broadcast(std::string&) override {}
  void all_sum_host(std::span<double> values) override {
    if (values.size() == 3) values[0] += tokens_, values[1] += 1, values[2] += 1;
  }

 private:
  double tokens_;
};

TEST(StepLoss, CountsTheTokensOfAllLearners) {
  WithAnother both(8);
  EXPECT_NEAR(outcome(reinforce({}, "token_mean"), {4}, both).gradient[0], -1.0 / 16, 1e-6);
  EXPECT_NEAR(outcome(reinforce({}, "prompt_mean"), {4}, both).gradient[0], -1.0 / 5 / 4, 1e-6);
}

TEST(StepLoss, TakesTheAnchorThatIsAskedFor) {
  AlgorithmOptions options;  // cispo, [0, 5]
  options.aggregation = "token_mean";
  const auto rollout = outcome(options);
  EXPECT_NEAR(rollout.gradient[0], -std::exp(-0.1) / 8, 1e-6);
  EXPECT_NEAR(rollout.gradient[1], -5.0 / 8, 1e-6);  // capped
  EXPECT_NEAR(rollout.stats.clip_high_fraction, 2.0 / 8, 1e-12);
  options.anchor = "old";
  const auto old = outcome(options);
  EXPECT_NEAR(old.gradient[1], -1.0 / 8, 1e-6);
  EXPECT_EQ(old.stats.clip_high_fraction, 0);
  options.corrections = {{CorrectionKind::kTokenTis, 0, 2}};
  EXPECT_NEAR(outcome(options).gradient[0], -std::exp(-0.1) / 8, 1e-6);
  EXPECT_NEAR(outcome(options).gradient[1], -2.0 / 8, 1e-6);
}

// As in a step's second update, before which the policy has moved by 0.2 nats.
TEST(StepLoss, ComparesLaterUpdatesWithTheStartOfTheStep) {
  AlgorithmOptions options;  // cispo, [0, 5]
  options.aggregation = "token_mean";
  options.anchor = "old";
  const Micro one = micro(0, 4);
  const std::vector<PackedBatch> batches{one.batch};
  const auto communicator = make_single_communicator();
  const auto gradient = [&](const std::vector<at::Tensor>& old) {
    StepLoss loss(options, batches, old, {}, *communicator);
    const at::Tensor current = (one.old + 0.2).set_requires_grad(true);
    loss.share(0, current).backward();
    return current.grad().const_data_ptr<float>()[7];
  };
  EXPECT_NEAR(gradient({}), 2.0 / 8, 1e-6);
  EXPECT_NEAR(gradient({one.old}), 2 * std::exp(0.2) / 8, 1e-6);
  options.corrections = {{CorrectionKind::kIcepop, 0.5, 5}};  // two tokens less
  EXPECT_NEAR(gradient({one.old}), 2 * std::exp(0.2) / 6, 1e-6);
}

TEST(StepLoss, IsZeroWhenEverythingIsRejected) {
  const auto result =
      outcome(reinforce({{CorrectionKind::kIcepop, 0.99999, 0.999995}}, "token_mean"));
  EXPECT_EQ(result.loss, 0);
  EXPECT_THAT(result.gradient, testing::Each(0.0));
  EXPECT_EQ(result.stats.tokens_rejected, 8);
}

}  // namespace
}  // namespace rollcall
