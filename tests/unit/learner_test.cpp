// SPDX-License-Identifier: Apache-2.0
#include "trainer/learner.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isclose.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "comms/communicator.h"
#include "comms/error.h"
#include "copied_weights.h"
#include "temp_folder.h"
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
    return learner.masters().flat.clone();
  }

  void expect_bitwise_resume(at::ScalarType dtype);

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

// Noise and signal are of the same gradient: they add up to its norm, by 5 rollouts.
TEST_F(LearnerTest, PartsItsGradientIntoSignalAndNoise) {
  updated(1000);
  EXPECT_FALSE(stats_.noise.has_value()) << "one micro-batch cannot be parted";
  updated(20);
  ASSERT_TRUE(stats_.noise.has_value());
  EXPECT_NEAR(stats_.noise->signal + stats_.noise->noise / 5, std::pow(stats_.grad_norm_l2, 2),
              1e-9);
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
  EXPECT_TRUE(at::equal(learner.masters().flat, TinyModel(5).weights.flat));
}

// A batch of the shape alone: what it takes no machine has.
TEST_F(LearnerTest, ComputesLayersAgainWhereMemoryOrAPersonSaysSo) {
  TinyModel model(5);
  Trunk trunk(model.spec, model.weights, *alone_, at::kFloat);
  std::vector<PackedBatch> usual = pack_sequences(sequences_, 1000), huge(1);
  huge[0].tokens = usual[0].tokens.slice(0, 0, 1).expand({std::int64_t{1} << 40});
  EXPECT_EQ(trunk.activations(std::nullopt, usual), Activations::kKept);
  EXPECT_EQ(trunk.activations(std::nullopt, huge), Activations::kRecomputed);
  EXPECT_EQ(trunk.activations(std::nullopt, {}), Activations::kKept);
  EXPECT_EQ(trunk.activations(true, usual), Activations::kRecomputed);
  EXPECT_EQ(trunk.activations(false, huge), Activations::kKept);
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
    return learner.masters().flat.clone();
  };
  const at::Tensor moved = step(1);
  EXPECT_FALSE(at::equal(moved, TinyModel(5).weights.flat));
  EXPECT_TRUE(at::equal(step(0), moved));
  EXPECT_EQ(learner.state().steps, 1);
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

// The gradient is that of the rounded weights, but for the rounding of the inputs of products, and
// steps the masters, which keep what rounding drops.
TEST_F(LearnerTest, StepsTheMastersByTheGradientOfTheirRounding) {
  const auto batches = pack_sequences(sequences_, 20);
  ASSERT_GE(batches.size(), 2u);  // several backward passes through one rounding
  const auto loss = [](std::size_t, const TokenLogprobs& current) {
    return -current.logprobs.sum();
  };
  const auto update = [&](TinyModel& model, at::ScalarType dtype) {
    Learner learner(model.spec, model.weights, model.spec.vocab_size, *alone_, dtype);
    return learner.update(batches, loss, {{1e-3, 0.9, 0.95, 1e-8, 0.0}}, [] {});
  };
  TinyModel half(5), wide(5);
  const at::Tensor masters = half.weights.flat.clone();
  const at::Tensor rounded = masters.to(at::kBFloat16).to(at::kFloat);
  wide.weights.flat.copy_(rounded);
  const UpdateStats a = update(half, at::kBFloat16), b = update(wide, at::kFloat);
  EXPECT_NEAR(a.loss, b.loss, 0.02 * std::abs(b.loss));
  EXPECT_NEAR(a.grad_norm_l2, b.grad_norm_l2, 0.05 * b.grad_norm_l2);
  EXPECT_FALSE(at::equal(rounded, masters));
  // The first step of AdamW moves by the learning rate in the gradient's direction, whatever the
  // weight.
  const at::Tensor moved = half.weights.flat - masters, expected = wide.weights.flat - rounded;
  const at::Tensor same = at::isclose(moved, expected, 0, 1e-6);
  EXPECT_GT(same.to(at::kDouble).mean().item<double>(), 0.95);
}

TEST_F(LearnerTest, GoesOnBitForBitFromItsState) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) expect_bitwise_resume(dtype);
}

void LearnerTest::expect_bitwise_resume(at::ScalarType dtype) {
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
  Learner a(straight.spec, straight.weights, straight.spec.vocab_size, *alone_, dtype);
  step(a);
  const OptimizedWeights state = copied(a.state());
  step(a);
  Learner b(resumed.spec, resumed.weights, resumed.spec.vocab_size, *alone_, dtype);
  b.restore(state);
  step(b);
  EXPECT_TRUE(at::equal(a.masters().flat, b.masters().flat));
}

at::Tensor copied(const TensorSource& weights, const ModelSpec& spec) {
  FlatWeights copy = make_flat_weights(spec);
  for (auto& [name, tensor] : copy.tensors) tensor.copy_(weights(name));
  return copy.flat;
}

// A checkpoint is written from where weights and moments are: three more of each may not fit.
TEST_F(LearnerTest, GivesItsStateWithoutACopy) {
  TinyModel model(5);
  Learner learner(model.spec, model.weights, model.spec.vocab_size, *alone_);
  const OptimizedWeights state = learner.state(), again = learner.state();
  EXPECT_EQ(state.masters.data(), model.weights.flat.const_data_ptr<float>());
  EXPECT_EQ(state.first_moment.data(), again.first_moment.data());
  EXPECT_EQ(state.second_moment.data(), again.second_moment.data());
}

class LoraLearnerTest : public LearnerTest {
 protected:
  // A fresh adapter on a model of weights that are always the same.
  TrainedPolicy policy(std::uint64_t adapter_seed) const {
    LoraOptions options;
    options.rank = 3;
    LoraAdapter adapter = make_lora_adapter(tiny_spec(), options);
    init_lora(adapter_seed, adapter);
    return {tiny_spec(), source_of(frozen_.weights.tensors), adapter};
  }

  void step(Learner& learner, bool activation_checkpointing = false) {
    const auto batches = pack_sequences(sequences_, 1000);
    const auto denominators = step_denominators(batches, *alone_);
    UpdateOptions options{{1e-2, 0.9, 0.95, 1e-8, 0.01}};
    options.activation_checkpointing = activation_checkpointing;
    stats_ = learner.update(
        batches,
        [&](std::size_t i, const TokenLogprobs& current) {
          return policy_loss(batches[i].actions, current.logprobs, denominators[i], {}).loss;
        },
        options, [] {});
  }

  Learner make(const TrainedPolicy& policy) {
    return Learner(tiny_spec(), policy, tiny_spec().vocab_size, *alone_);
  }

  const TinyModel frozen_{5};
};

TEST_F(LoraLearnerTest, TrainsTheAdapterAloneAndThePolicyFollows) {
  const TrainedPolicy trained = policy(1);
  const at::Tensor before = frozen_.weights.flat.clone();
  EXPECT_TRUE(at::equal(copied(trained.source(), frozen_.spec), before));
  Learner learner = make(trained);
  step(learner);
  step(learner);
  EXPECT_EQ(learner.state().first_moment.size(),
            static_cast<std::size_t>(trained.masters().flat.numel()));
  EXPECT_TRUE(at::equal(frozen_.weights.flat, before));
  for (const auto& [name, t] : frozen_.weights.tensors) {
    const bool adapted = name.ends_with("_proj.weight");
    EXPECT_EQ(at::equal(learner.policy().source()(name), t), !adapted) << name;
  }
}

TEST_F(LoraLearnerTest, MakesTheSampledTokensLikelier) {
  Learner learner = make(policy(1));
  const auto batches = pack_sequences(sequences_, 1000);
  const auto loss = [](std::size_t, const TokenLogprobs& current) {
    return -current.logprobs.mean();
  };
  const UpdateOptions options{{1e-2, 0.9, 0.95, 1e-8, 0.01}};
  const double before = learner.update(batches, loss, options, [] {}).loss;
  for (int i = 0; i < 5; ++i) stats_ = learner.update(batches, loss, options, [] {});
  EXPECT_LT(stats_.loss, 0.9 * before);
}

TEST_F(LoraLearnerTest, GoesOnBitForBitFromItsState) {
  Learner a = make(policy(1));
  step(a);
  const OptimizedWeights state = copied(a.state());
  step(a);
  Learner b = make(policy(2));
  b.restore(state);
  step(b);
  EXPECT_TRUE(at::equal(a.masters().flat, b.masters().flat));
}

TEST_F(LoraLearnerTest, UpdatesToTheSameBitsWithActivationCheckpointing) {
  Learner plain = make(policy(1)), again = make(policy(1));
  step(plain);
  step(again, true);
  EXPECT_TRUE(at::equal(plain.masters().flat, again.masters().flat));
}

TEST_F(LoraLearnerTest, IsReadFromItsCheckpointAndNotOnAnotherBase) {
  const TempFolder dir;
  const TinyModel base(5), other(6);
  save_weights(dir.path(), base.weights.tensors, "float32");
  Learner learner = make(policy(1));
  step(learner);
  TrainState state;
  state.lora = learner.policy().lora();
  state.base_xxh3 = learner.policy().base_xxh3();
  state.policy = learner.state();
  const auto folder = save_checkpoint(dir / "checkpoints", state, 1);
  const StoredPolicy stored = checkpointed_policy(folder, dir.path(), base.spec);
  EXPECT_EQ(stored.adapter->options, state.lora);
  EXPECT_TRUE(
      at::equal(copied(stored.weights, base.spec), copied(learner.policy().source(), base.spec)));
  save_weights(dir.path(), other.weights.tensors, "float32");
  EXPECT_THROW(checkpointed_policy(folder, dir.path(), base.spec), Error);
}

TEST_F(LearnerTest, IsReadFromItsCheckpointAndNotAsAnotherModel) {
  const TempFolder dir;
  const TinyModel model(5);
  TrainState state;
  const at::Tensor& masters = model.weights.flat;
  const SharedFloats floats(
      {masters.const_data_ptr<float>(), static_cast<std::size_t>(masters.numel())});
  state.policy = {0, floats, floats, floats};
  const auto folder = save_checkpoint(dir / "checkpoints", state, 1);
  const TensorSource weights = checkpointed_policy(folder, dir.path(), model.spec).weights;
  EXPECT_TRUE(at::equal(copied(weights, model.spec), masters));
  EXPECT_FALSE(weights("lm_head.bias").defined());
  ModelSpec larger = model.spec;
  ++larger.layers;
  EXPECT_THROW(checkpointed_policy(folder, dir.path(), larger), Error);
}

TEST_F(LearnerTest, PacksAPromptOnceForItsMembers) {
  const auto batches = pack_sequences(sequences_, 1000);
  // Two prompts of 6, and what each member needs to predict its last action token.
  EXPECT_EQ(batches[0].tokens.numel(), 2 * 6 + (3 + 4 + 5 + 6 + 7));
  EXPECT_EQ(batches[0].segments.size(), 7u);
}

TEST_F(LearnerTest, SplitsMinibatchesByPromptsOfTheWholeStep) {
  const auto parts = [&](std::span<const TrainSequence> mine, std::int64_t count) {
    std::vector<std::vector<std::int64_t>> found;
    const Minibatches all = pack_minibatches(mine, 2, count, 1000);
    std::size_t i = 0;
    for (const std::size_t end : all.ends)
      for (found.emplace_back(); i < end; ++i)
        found.back().insert(found.back().end(), all.batches[i].sequences.begin(),
                            all.batches[i].sequences.end());
    return found;
  };
  using Parts = std::vector<std::vector<std::int64_t>>;
  EXPECT_EQ(parts(sequences_, 1), (Parts{{0, 1, 2, 3, 4}}));
  EXPECT_EQ(parts(sequences_, 2), (Parts{{0, 1, 2}, {3, 4}}));
  EXPECT_EQ(parts(sequences_, 4), (Parts{{0, 1, 2}, {}, {3, 4}, {}}));
  EXPECT_EQ(parts(std::span(sequences_).subspan(3), 2), (Parts{{}, {0, 1}}));  // another learner's
}

TEST_F(LearnerTest, LeavesOutASequenceWithoutActionTokens) {
  is_action_[0].assign(is_action_[0].size(), 0);
  const auto batches = pack_sequences(sequences_, 1000);
  EXPECT_EQ(batches[0].sequences, (std::vector<std::int64_t>{1, 2, 3, 4}));
  EXPECT_DOUBLE_EQ(step_denominators(batches, *alone_)[0].sequences, 4);
}

}  // namespace
}  // namespace rollcall
