// SPDX-License-Identifier: Apache-2.0
#include "trainer/losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "comms/error.h"

namespace rollcall {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pointwise;

struct Sequence {
  std::int64_t prompt = 0;
  double advantage = 0;
  std::vector<double> current, anchor;
};

struct Result {
  double loss = 0;
  std::vector<double> gradient;
  double clip_high = 0, clip_low = 0;
};

LossDenominators denominators_of(const std::vector<Sequence>& step, std::size_t prompts) {
  LossDenominators d;
  d.tokens_of_prompt.resize(prompts);
  for (const Sequence& s : step) {
    const auto count = static_cast<double>(s.current.size());
    d.tokens += count;
    d.sequences += count > 0 ? 1 : 0;
    d.tokens_of_prompt[static_cast<std::size_t>(s.prompt)] += count;
    d.tokens_of_sequence.push_back(count);
  }
  for (double count : d.tokens_of_prompt) d.prompts += count > 0 ? 1 : 0;
  return d;
}

Result loss_of(const std::vector<Sequence>& sequences, const LossDenominators& denominators,
               const LossOptions& options, at::ScalarType dtype = at::kDouble, double weight = 1) {
  std::vector<double> current, anchor, advantages;
  std::vector<std::int64_t> index, prompts;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    prompts.push_back(sequences[s].prompt);
    for (std::size_t t = 0; t < sequences[s].current.size(); ++t) {
      current.push_back(sequences[s].current[t]);
      anchor.push_back(sequences[s].anchor[t]);
      advantages.push_back(sequences[s].advantage);
      index.push_back(static_cast<std::int64_t>(s));
    }
  }
  at::Tensor logprobs = at::tensor(current, dtype);
  logprobs.set_requires_grad(true);
  const ActionTokens tokens{.anchor_logprobs = at::tensor(anchor, dtype),
                            .advantages = at::tensor(advantages, dtype),
                            .sequence = at::tensor(index, at::kLong),
                            .prompt = at::tensor(prompts, at::kLong)};
  const at::Tensor reference = tokens.anchor_logprobs - 0.5;
  const LossStats stats = policy_loss(tokens, logprobs, denominators, options,
                                      {at::full_like(reference, weight), reference});
  stats.loss.backward();
  const at::Tensor gradient = logprobs.grad().to(at::kDouble).contiguous();
  const auto* values = gradient.const_data_ptr<double>();
  return {stats.loss.item().toDouble(),
          {values, values + gradient.numel()},
          stats.clip_high_fraction_sum,
          stats.clip_low_fraction_sum};
}

// One token with ratio `r`.
Result single(double r, double advantage, const LossOptions& options) {
  const std::vector<Sequence> step{{0, advantage, {-1.0}, {-1.0 - std::log(r)}}};
  return loss_of(step, denominators_of(step, 1), options);
}

std::vector<Sequence> random_step(std::uint64_t seed) {
  std::mt19937_64 source(seed);
  std::normal_distribution<double> normal;
  std::vector<Sequence> step;
  for (std::int64_t s = 0; s < 12; ++s) {
    Sequence one{.prompt = s / 3, .advantage = normal(source), .current = {}, .anchor = {}};
    const int length = s == 4 ? 0 : 1 + static_cast<int>(source() % 7);
    for (int t = 0; t < length; ++t) {
      one.current.push_back(-std::abs(normal(source)));
      one.anchor.push_back(one.current.back() + 0.4 * normal(source));
    }
    step.push_back(one);
  }
  return step;
}

std::vector<LossOptions> all_options() {
  std::vector<LossOptions> all;
  for (std::string_view loss : loss_names()) {
    for (std::string_view aggregation : aggregation_names()) {
      all.push_back({.kind = loss_kind(std::string(loss)),
                     .aggregation = aggregation_kind(std::string(aggregation)),
                     .constant = 16,
                     .clip_low = 0.2,
                     .clip_high = 0.28,
                     .dual_clip = 3,
                     .kl = {.kind = KlKind::kK3, .coef = 0.1, .importance_weighted = true}});
    }
  }
  return all;
}

TEST(Cispo, CapsTheWeightOfTheGradient) {
  const Result result = single(7, 1, {.kind = LossKind::kCispo});
  EXPECT_THAT(result.gradient, Pointwise(DoubleNear(1e-12), {-5.0}));
  EXPECT_EQ(result.clip_high, 1);
}

// Ratios of 1.44 and 1 are one of 1.2 for the sequence; of 4 and 1 one of 2, which is clipped.
TEST(Gspo, HasOneRatioASequence) {
  const LossOptions options{.kind = LossKind::kGspo, .clip_low = 0.2, .clip_high = 0.28};
  const auto of = [&](double ratio, double advantage) {
    const std::vector<Sequence> step{{0, advantage, {-1, -2}, {-1 - std::log(ratio), -2}}};
    return loss_of(step, denominators_of(step, 1), options);
  };
  EXPECT_NEAR(of(1.44, 1).loss, -1.2, 1e-12);
  EXPECT_THAT(of(1.44, 1).gradient, Pointwise(DoubleNear(1e-12), {-0.6, -0.6}));
  EXPECT_NEAR(of(4, 1).loss, -1.28, 1e-12);
  EXPECT_THAT(of(4, 1).gradient, ElementsAre(0.0, 0.0));
  EXPECT_THAT(of(4, -1).gradient, Pointwise(DoubleNear(1e-12), {1.0, 1.0}));
}

// Two sequences of one prompt and one of another, of 1, 3 and 2 tokens, A = 1.
TEST(Aggregations, WeighTokensAsWrittenDown) {
  const std::vector<Sequence> step{
      {0, 1, {-1}, {-1}}, {0, 1, {-1, -1, -1}, {-1, -1, -1}}, {1, 1, {-1, -1}, {-1, -1}}};
  const auto weights = [&](Aggregation aggregation) {
    const LossOptions options{
        .kind = LossKind::kReinforce, .aggregation = aggregation, .constant = 4};
    return loss_of(step, denominators_of(step, 2), options).gradient;
  };
  const auto are = [](std::vector<double> expected) {
    for (double& value : expected) value = -value;
    return Pointwise(DoubleNear(1e-12), expected);
  };
  EXPECT_THAT(weights(Aggregation::kTokenMean), are(std::vector<double>(6, 1.0 / 6)));
  EXPECT_THAT(weights(Aggregation::kSeqMeanTokenMean),
              are({1.0 / 3, 1.0 / 9, 1.0 / 9, 1.0 / 9, 1.0 / 6, 1.0 / 6}));
  EXPECT_THAT(weights(Aggregation::kSeqMeanTokenSumConst), are(std::vector<double>(6, 1.0 / 12)));
  EXPECT_THAT(weights(Aggregation::kPromptMean),
              are({1.0 / 8, 1.0 / 8, 1.0 / 8, 1.0 / 8, 1.0 / 4, 1.0 / 4}));
}

TEST(PpoClip, StopsTheGradientOnlyWhereTheAdvantagePushesOutwards) {
  const LossOptions options{.kind = LossKind::kPpoClip, .clip_low = 0.2, .clip_high = 0.28};
  EXPECT_THAT(single(1.5, 1, options).gradient, ElementsAre(0.0));
  EXPECT_THAT(single(1.5, -1, options).gradient, Pointwise(DoubleNear(1e-12), {1.5}));
  EXPECT_THAT(single(0.5, -1, options).gradient, ElementsAre(0.0));
  EXPECT_EQ(single(1.5, 1, options).clip_high, 1);
  EXPECT_EQ(single(1.5, -1, options).clip_high, 0);
  EXPECT_EQ(single(0.5, -1, options).clip_low, 1);
}

TEST(PpoClip, BoundsNegativeAdvantagesByTheDualClip) {
  const LossOptions options{
      .kind = LossKind::kPpoClip, .clip_low = 0.2, .clip_high = 0.28, .dual_clip = 3};
  const Result result = single(8, -1, options);
  EXPECT_NEAR(result.loss, 3, 1e-12);
  EXPECT_THAT(result.gradient, ElementsAre(0.0));
}

TEST(DppoTv, DropsATokenOnlyWhereItMovedTooFarTheWayItIsPushed) {
  const LossOptions options{.kind = LossKind::kDppoTv};  // divergence 0.2
  const double up = 2, down = 1 / 2.7;                   // from 0.18 to 0.37, and from 0.99 to 0.37
  EXPECT_THAT(single(up, 1, options).gradient, Pointwise(DoubleNear(1e-12), {-up}));
  EXPECT_THAT(single(2.5, 1, options).gradient, ElementsAre(0.0));  // from 0.15
  EXPECT_THAT(single(2.5, -1, options).gradient, Pointwise(DoubleNear(1e-12), {2.5}));
  EXPECT_THAT(single(down, -1, options).gradient, ElementsAre(0.0));
  EXPECT_THAT(single(down, 1, options).gradient, Pointwise(DoubleNear(1e-12), {-down}));
  EXPECT_EQ(single(2.5, 1, options).clip_high, 1);
  EXPECT_EQ(single(down, -1, options).clip_low, 1);
}

TEST(DppoTv, CapsTheWeight) {
  const LossOptions options{.kind = LossKind::kDppoTv, .divergence = 1, .ratio_cap = 5};
  EXPECT_THAT(single(7, 1, options).gradient, Pointwise(DoubleNear(1e-12), {-5.0}));
}

// sigma(1) (1 - sigma(1)) = 0.19661; the gradient at r is -4 sigma' r A.
TEST(Sapo, FadesTheGradientOut) {
  const LossOptions options{.kind = LossKind::kSapo, .tau_positive = 1, .tau_negative = 2};
  EXPECT_NEAR(single(1, 1, options).loss, -2, 1e-12);
  EXPECT_NEAR(single(1, -1, options).loss, 1, 1e-12);
  EXPECT_NEAR(single(2, 1, options).gradient[0], -4 * 0.1966119332 * 2, 1e-9);
  EXPECT_NEAR(single(1.5, -1, options).gradient[0], 4 * 0.1966119332 * 1.5, 1e-9);
}

TEST(PolicyLoss, IgnoresRatiosBeyondTheClamp) {
  const LossOptions options{.kind = LossKind::kPpoClip, .clip_low = 0.2, .clip_high = 0.28};
  const std::vector<Sequence> step{{0, -1, {-1.0}, {-31.0}}};
  const Result result = loss_of(step, denominators_of(step, 1), options);
  EXPECT_NEAR(result.loss, std::exp(20.0), 1e-3);
  EXPECT_THAT(result.gradient, ElementsAre(0.0));
}

TEST(PolicyLoss, EqualsPolicyGradientWhereRatiosAreOne) {
  std::vector<Sequence> step = random_step(3);
  for (Sequence& s : step) s.anchor = s.current;
  const LossDenominators d = denominators_of(step, 4);
  const LossOptions reinforce{.kind = LossKind::kReinforce, .aggregation = Aggregation::kTokenMean};
  const std::vector<double> expected = loss_of(step, d, reinforce).gradient;
  for (LossKind kind : {LossKind::kCispo, LossKind::kPpoClip, LossKind::kDppoTv, LossKind::kSapo}) {
    const LossOptions options{.kind = kind, .aggregation = Aggregation::kTokenMean};
    EXPECT_THAT(loss_of(step, d, options).gradient, Pointwise(DoubleNear(1e-12), expected));
  }
}

TEST(PolicyLoss, DoesNotDependOnHowAStepIsCutIntoMicroBatches) {
  const std::vector<Sequence> step = random_step(11);
  const LossDenominators whole = denominators_of(step, 4);
  for (const LossOptions& options : all_options()) {
    const Result expected = loss_of(step, whole, options);
    for (std::size_t size : {1u, 2u, 5u}) {
      Result sum;
      for (std::size_t begin = 0; begin < step.size(); begin += size) {
        const std::size_t end = std::min(begin + size, step.size());
        const std::vector<Sequence> part(step.begin() + begin, step.begin() + end);
        LossDenominators shared = whole;  // counts of the step, sequences of the part
        shared.tokens_of_sequence = denominators_of(part, 4).tokens_of_sequence;
        const Result share = loss_of(part, shared, options);
        sum.loss += share.loss;
        sum.gradient.insert(sum.gradient.end(), share.gradient.begin(), share.gradient.end());
      }
      EXPECT_NEAR(sum.loss, expected.loss, 1e-12);
      EXPECT_THAT(sum.gradient, Pointwise(DoubleNear(1e-12), expected.gradient));
    }
  }
}

TEST(PolicyLoss, IgnoresEmptySequencesAndPrompts) {
  std::vector<Sequence> step = random_step(5);
  for (const LossOptions& options : all_options()) {
    const Result expected = loss_of(step, denominators_of(step, 4), options);
    std::vector<Sequence> padded = step;
    padded.push_back({4, 2.0, {}, {}});
    const Result result = loss_of(padded, denominators_of(padded, 5), options);
    EXPECT_DOUBLE_EQ(result.loss, expected.loss);
  }
}

TEST(PolicyLoss, IsZeroWhenNothingIsLeft) {
  const std::vector<Sequence> nothing{{0, 1.0, {}, {}}};
  for (const LossOptions& options : all_options()) {
    const Result result = loss_of(nothing, denominators_of(nothing, 1), options);
    EXPECT_EQ(result.loss, 0);
    EXPECT_TRUE(result.gradient.empty());
  }
}

TEST(PolicyLoss, WeighsTokensButNotTheirKl) {
  const std::vector<Sequence> step{{0, 2, {-1.0}, {-1.0}}};
  LossOptions options{.kind = LossKind::kReinforce, .kl = {.kind = KlKind::kK2, .coef = 0.1}};
  const Result result = loss_of(step, denominators_of(step, 1), options, at::kDouble, 3);
  // -3 A logp + 0.1 d^2 / 2, with d = log(current / reference) = 0.5
  EXPECT_NEAR(result.loss, 3 * 2 + 0.1 * 0.125, 1e-12);
  EXPECT_NEAR(result.gradient[0], -3 * 2 + 0.1 * 0.5, 1e-12);
}

TEST(PolicyLoss, NeedsTheReferenceOfItsKl) {
  const ActionTokens one{at::tensor({-1.0}), at::tensor({1.0}), at::tensor({0}, at::kLong),
                         at::tensor({0}, at::kLong)};
  LossOptions options;
  options.kl.coef = 0.1;
  EXPECT_THROW(policy_loss(one, at::tensor({-1.0}), count_tokens(one), options), Error);
}

TEST(CountTokens, CountsWhatSequencesAndPromptsHold) {
  const std::vector<Sequence> step = random_step(2);
  const LossDenominators expected = denominators_of(step, 4);
  std::vector<std::int64_t> sequence, prompt;
  for (std::size_t s = 0; s < step.size(); ++s) {
    prompt.push_back(step[s].prompt);
    sequence.insert(sequence.end(), step[s].current.size(), static_cast<std::int64_t>(s));
  }
  const LossDenominators d =
      count_tokens({{}, {}, at::tensor(sequence, at::kLong), at::tensor(prompt, at::kLong)});
  EXPECT_EQ(d.tokens, expected.tokens);
  EXPECT_EQ(d.sequences, 11);
  EXPECT_EQ(d.prompts, 4);
  EXPECT_EQ(d.tokens_of_prompt, expected.tokens_of_prompt);
  EXPECT_EQ(d.tokens_of_sequence, expected.tokens_of_sequence);
}

TEST(PolicyLoss, AgreesInSinglePrecision) {
  const std::vector<Sequence> step = random_step(8);
  const LossDenominators d = denominators_of(step, 4);
  for (const LossOptions& options : all_options()) {
    const Result wide = loss_of(step, d, options);
    const Result narrow = loss_of(step, d, options, at::kFloat);
    EXPECT_NEAR(narrow.loss, wide.loss, 1e-5);
    EXPECT_THAT(narrow.gradient, Pointwise(DoubleNear(1e-5), wide.gradient));
  }
}

TEST(PolicyLoss, RefusesCountsOfAnotherShape) {
  const std::vector<Sequence> step = random_step(1);
  LossDenominators d = denominators_of(step, 4);
  d.tokens_of_sequence.pop_back();
  EXPECT_THROW(loss_of(step, d, {}), Error);
  d = denominators_of(step, 4);
  d.tokens_of_prompt.pop_back();
  EXPECT_THROW(loss_of(step, d, {}), Error);
}

TEST(LossNames, AreListedWhenOneIsUnknown) {
  try {
    loss_kind("grpo");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what_to_do(), HasSubstr("ppo_clip, cispo"));
  }
  EXPECT_THROW(aggregation_kind("mean"), Error);
}

}  // namespace
}  // namespace rollcall
