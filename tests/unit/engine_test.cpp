// SPDX-License-Identifier: Apache-2.0
#include "model/engine.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "comms/error.h"
#include "model/prefill_pace.h"
#include "model/published_weights.h"
#include "published_copy.h"
#include "tiny_model.h"

namespace rollcall {
namespace {

using Ids = std::vector<std::int32_t>;

// An engine with the tiny model's weights, and the turns it finishes.
class EngineTest : public testing::Test {
 protected:
  explicit EngineTest(const ModelSpec& spec = tiny_spec(), at::ScalarType dtype = at::kFloat)
      : model_(7, spec, dtype), engine_(make()) {}

  std::unique_ptr<Engine> make(std::int64_t max_context = 400, std::int64_t max_batch = 64) const {
    auto engine = std::make_unique<Engine>(
        model_.spec, EngineOptions{max_context, max_batch, model_.decoder.dtype()});
    engine->load(3, source_of(model_.weights.tensors));
    return engine;
  }

  static SamplingOptions turn(std::int32_t tokens) { return {tokens, {}, 0}; }

  static std::map<SequenceId, Completion> run(Engine& engine) {
    std::map<SequenceId, Completion> done;
    while (engine.has_work())
      for (auto& f : engine.step()) done[f.sequence] = std::move(f.completion);
    return done;
  }

  Completion alone(const Ids& prompt, std::uint64_t seed, std::int32_t tokens) const {
    const auto engine = make();
    const SequenceId id = engine->open(prompt, seed);
    engine->request_turn(id, {}, turn(tokens));
    return run(*engine).at(id);
  }

  static Completion sampled(Engine& engine) {
    const SequenceId id = engine.open(Ids{1, 2, 3}, 8);
    engine.request_turn(id, {}, turn(20));
    return run(engine).at(id);
  }

  TinyModel model_;
  std::unique_ptr<Engine> engine_;
};

struct Layout {
  const char* name;
  ModelSpec spec;
  at::ScalarType dtype;
};

class EngineBits : public EngineTest, public testing::WithParamInterface<Layout> {
 protected:
  EngineBits() : EngineTest(GetParam().spec, GetParam().dtype) {}
};

INSTANTIATE_TEST_SUITE_P(Layouts, EngineBits,
                         testing::Values(Layout{"plain", tiny_spec(), at::kFloat},
                                         Layout{"windowed", tiny_windowed_spec(), at::kFloat},
                                         Layout{"bfloat16", tiny_spec(), at::kBFloat16},
                                         Layout{"windowed_bfloat16", tiny_windowed_spec(),
                                                at::kBFloat16}),
                         [](const auto& test) { return test.param.name; });

TEST_P(EngineBits, SamplesTheSameTokensAloneAndInACrowd) {
  const Ids mine{1, 2, 3, 4, 5};
  const Completion expected = alone(mine, 42, 30);
  std::vector<SequenceId> others;
  for (int i = 0; i < 20; ++i) {
    Ids prompt(static_cast<std::size_t>(1 + i * 7), i);
    others.push_back(engine_->open(prompt, static_cast<std::uint64_t>(i)));
    engine_->request_turn(others.back(), {}, turn(5 + i));
  }
  for (int i = 0; i < 4; ++i) engine_->step();
  const SequenceId id = engine_->open(mine, 42);
  engine_->request_turn(id, {}, turn(30));
  const Completion got = run(*engine_).at(id);
  EXPECT_EQ(got.tokens, expected.tokens);
  EXPECT_EQ(got.logprobs, expected.logprobs);
}

TEST_F(EngineTest, PrefillsAGroupsPromptOnce) {
  const Ids prompt(50, 9);
  for (std::uint64_t seed = 0; seed < 8; ++seed)
    engine_->request_turn(engine_->open(prompt, seed), {}, turn(4));
  std::multiset<std::int64_t> computed;
  for (const auto& [id, turn] : run(*engine_)) computed.insert(turn.prefill_tokens);
  EXPECT_EQ(computed, (std::multiset<std::int64_t>{0, 0, 0, 0, 0, 0, 0, 50}));
}

TEST_F(EngineTest, DrawsDifferentTokensForDifferentSeeds) {
  EXPECT_NE(alone({1, 2, 3}, 1, 20).tokens, alone({1, 2, 3}, 2, 20).tokens);
}

TEST_F(EngineTest, KeepsTheCacheAcrossTurns) {
  const Ids prompt{1, 2, 3}, delta{7, 8, 9, 10};
  const SequenceId id = engine_->open(prompt, 5);
  engine_->request_turn(id, {}, turn(6));
  const auto first = run(*engine_).at(id);
  EXPECT_EQ(first.prefill_tokens, 3);
  engine_->request_turn(id, delta, turn(6));
  const auto second = run(*engine_).at(id);
  EXPECT_EQ(second.prefill_tokens, 1 + 4) << "the last sampled token and the delta";
  EXPECT_EQ(engine_->length(id), 3 + 6 + 4 + 6);
  EXPECT_EQ(first.tokens.size() + second.tokens.size(), 12u);
}

// Two turns with a delta between them, against the log-probabilities that the decoder gives the
// same tokens in one packed row. What is longer than a round's rows comes in pieces: 64 at first,
// at most 512 when the second turn begins.
TEST_P(EngineBits, GivesTheLearnersLogProbabilitiesBitForBit) {
  for (const auto& [prompt_length, delta_length] : {std::pair{18, 5}, {150, 560}}) {
    Ids prompt, delta;
    for (std::int32_t i = 0; i < prompt_length; ++i) prompt.push_back((11 + 7 * i) % 100);
    for (std::int32_t i = 0; i < delta_length; ++i) delta.push_back((7 + 3 * i) % 100);
    const auto engine = make(/*max_context=*/800);
    const SequenceId id = engine->open(prompt, 77);
    engine->request_turn(id, {}, turn(21));
    const auto first = run(*engine).at(id);
    engine->request_turn(id, delta, turn(9));
    const auto second = run(*engine).at(id);

    std::vector<std::int64_t> tokens(prompt.begin(), prompt.end());
    tokens.insert(tokens.end(), first.tokens.begin(), first.tokens.end());
    tokens.insert(tokens.end(), delta.begin(), delta.end());
    tokens.insert(tokens.end(), second.tokens.begin(), second.tokens.end());
    const auto p = static_cast<std::int64_t>(prompt.size()),
               n = static_cast<std::int64_t>(tokens.size());
    const at::Tensor all = at::tensor(tokens);
    const at::Tensor hidden = model_.decoder.packed_hidden(all, {{0, p, -1}, {p, n - p, 0}});
    const auto learner =
        token_logprobs(hidden.narrow(0, p - 1, n - p), model_.decoder.head(),
                       all.narrow(0, p, n - p).contiguous(), model_.spec.vocab_size)
            .logprobs;
    const float* got = learner.const_data_ptr<float>();
    for (std::size_t i = 0; i < 21; ++i) EXPECT_EQ(first.logprobs[i], got[i]) << i;
    for (std::size_t i = 0; i < 9; ++i)
      EXPECT_EQ(second.logprobs[i], got[21 + delta.size() + i]) << i;
  }
}

TEST_F(EngineTest, ATurnGoesOnWhileALongPromptIsPrefilled) {
  const SequenceId talking = engine_->open(Ids{1, 2, 3}, 1);
  engine_->request_turn(talking, {}, turn(2));
  run(*engine_);
  engine_->request_turn(talking, Ids{4}, turn(2));
  const SequenceId reading = engine_->open(Ids(390, 5), 2);
  engine_->request_turn(reading, {}, turn(1));
  std::vector<SequenceId> order;
  int rounds = 0, rounds_of_talk = 0;
  for (; engine_->has_work(); ++rounds)
    for (const auto& finished : engine_->step()) {
      order.push_back(finished.sequence);
      if (finished.sequence == talking) rounds_of_talk = rounds + 1;
    }
  EXPECT_THAT(order, testing::ElementsAre(talking, reading));
  EXPECT_EQ(rounds_of_talk, 2);
  EXPECT_GT(rounds, 2);
}

TEST(PrefillPace, TakesAboutAQuarterOfASecondOrHalfWhereNothingDecodes) {
  PrefillPace pace;
  EXPECT_EQ(pace.rows(true), 64);
  EXPECT_EQ(pace.rows(false), 64) << "nothing is known yet";
  pace.add(64, 10);  // a large model on a slow machine
  EXPECT_EQ(pace.rows(true), 64);
  EXPECT_EQ(pace.rows(false), 64);
  for (const std::int64_t rows : {128, 256, 512, 1024, 1024}) {
    pace.add(pace.rows(true), 1e-6);
    EXPECT_EQ(pace.rows(true), rows) << "at most twice as many";
    EXPECT_EQ(pace.rows(false), std::min<std::int64_t>(1024, 2 * rows));
  }
  pace.add(1024, 1);
  EXPECT_EQ(pace.rows(true), 256);
  EXPECT_EQ(pace.rows(false), 512);
  pace.add(300, 0.5);  // some of them decoded
  EXPECT_EQ(pace.rows(true), 150);
  EXPECT_EQ(pace.rows(false), 300);
}

// Published weights give what the same weights row by row give, to the bit, and are not copied.
TEST_P(EngineBits, SamplesFromPublishedWeightsWhereTheyLie) {
  const at::ScalarType dtype = GetParam().dtype;
  PublishedCopy copy(model_.spec, dtype, source_of(model_.weights.tensors));
  const PublishedWeights published(model_.spec, dtype, copy.bytes());
  Engine worker(model_.spec, {400, 64, dtype});
  EXPECT_EQ(worker.load(4, published), WeightsUse::kInPlace);
  EXPECT_EQ(worker.version(), 4);
  EXPECT_EQ(sampled(worker).tokens, alone({1, 2, 3}, 8, 20).tokens);
  EXPECT_EQ(sampled(worker).logprobs, alone({1, 2, 3}, 8, 20).logprobs);
  worker.load(5, source_of(model_.weights.tensors));  // into memory of its own
  copy.overwrite();
  EXPECT_EQ(sampled(worker).logprobs, alone({1, 2, 3}, 8, 20).logprobs);
}

TEST_P(EngineBits, BindsPublishedMatricesWithoutACopy) {
  const at::ScalarType dtype = GetParam().dtype;
  const PublishedCopy copy(model_.spec, dtype, source_of(model_.weights.tensors));
  Decoder decoder(model_.spec, dtype);
  decoder.bind(PublishedWeights(model_.spec, dtype, copy.bytes()));
  const auto* head = static_cast<const std::byte*>(decoder.head().packed.const_data_ptr());
  EXPECT_GE(head, copy.bytes().data());
  EXPECT_LE(head + decoder.head().packed.nbytes(), copy.bytes().data() + copy.bytes().size());
  const at::ScalarType other = dtype == at::kFloat ? at::kBFloat16 : at::kFloat;
  EXPECT_THROW(Decoder(model_.spec, other).bind(PublishedWeights(model_.spec, dtype, copy.bytes())),
               Error);
}

// Weights that move to other memory in the middle of a group change nothing, and cost no prefill.
TEST_P(EngineBits, GoesOnWhenPublishedWeightsMove) {
  const at::ScalarType dtype = GetParam().dtype;
  const TensorSource source = source_of(model_.weights.tensors);
  PublishedCopy shared(model_.spec, dtype, source);
  const PublishedCopy own(model_.spec, dtype, source);
  Engine worker(model_.spec, {400, 64, dtype});
  worker.load(4, PublishedWeights(model_.spec, dtype, shared.bytes()));
  const SequenceId first = worker.open(Ids{1, 2, 3}, 8);
  worker.request_turn(first, {}, turn(20));
  for (int i = 0; i < 5; ++i) worker.step();
  worker.load(4, PublishedWeights(model_.spec, dtype, own.bytes()));
  shared.overwrite();
  EXPECT_EQ(run(worker).at(first).logprobs, alone({1, 2, 3}, 8, 20).logprobs);
  const Completion second = sampled(worker);
  EXPECT_EQ(second.logprobs, alone({1, 2, 3}, 8, 20).logprobs);
  EXPECT_EQ(second.prefill_tokens, 0) << "the prompt is there";
}

// More draws than there are logits in memory at once.
TEST_F(EngineTest, SamplesTheSameTokensInBatchesOfAnySize) {
  const auto sample = [&](std::int64_t batch) {
    const auto engine = make(/*max_context=*/400, batch);
    for (std::uint64_t seed = 0; seed < 150; ++seed)
      engine->request_turn(engine->open(Ids{1, 2, 3}, seed), {}, turn(3));
    std::vector<Ids> tokens;
    for (const auto& [id, done] : run(*engine)) tokens.push_back(done.tokens);
    return tokens;
  };
  EXPECT_EQ(sample(150), sample(7));
}

TEST_F(EngineTest, SamplesFromLeavesThatNeedGradients) {
  Engine other(model_.spec, {400, 64, model_.decoder.dtype()});
  NamedTensors leaves = model_.leaves();
  other.load(3, source_of(leaves));
  EXPECT_EQ(sampled(other).logprobs, sampled(*engine_).logprobs);
  for (auto& [name, values] : leaves) values = values.to(at::kDouble);
  EXPECT_THROW(other.load(4, source_of(leaves)), Error);
}

class Bfloat16EngineTest : public EngineTest {
 protected:
  Bfloat16EngineTest() : EngineTest(tiny_spec(), at::kBFloat16) {}
};

// A worker gets the rounded weights, the learner rounds its masters: not the policy of the masters.
TEST_F(Bfloat16EngineTest, IsNotThePolicyOfItsMasters) {
  Engine masters(model_.spec, {400, 64, at::kFloat});
  masters.load(4, source_of(model_.weights.tensors));
  EXPECT_NE(sampled(masters).logprobs, alone({1, 2, 3}, 8, 20).logprobs);
}

TEST_F(EngineTest, HasNoPolicyAfterALoadThatFailed) {
  EXPECT_THROW(engine_->load(4, [](const std::string&) { return at::Tensor(); }), Error);
  EXPECT_EQ(engine_->version(), -1);
  EXPECT_THROW(engine_->step(), Error);
}

TEST_F(EngineTest, StopsAtAStopTokenAndKeepsIt) {
  const Completion free = alone({1, 2, 3}, 8, 30);
  const SequenceId id = engine_->open(Ids{1, 2, 3}, 8);
  engine_->request_turn(id, {}, {30, {free.tokens[4]}, 0});
  const Completion got = run(*engine_).at(id);
  EXPECT_EQ(got.stop, StopReason::kStopToken);
  EXPECT_EQ(got.tokens.back(), free.tokens[4]);
  EXPECT_LE(got.tokens.size(), 5u);
}

TEST_F(EngineTest, EndsATurnWhenTheContextIsFull) {
  const auto engine = make(/*max_context=*/10);
  const SequenceId id = engine->open(Ids{1, 2, 3}, 8);
  engine->request_turn(id, {}, turn(30));
  const Completion got = run(*engine).at(id);
  EXPECT_EQ(got.stop, StopReason::kContextFull);
  EXPECT_EQ(got.tokens.size(), 7u);
}

TEST_F(EngineTest, NeverSamplesAPaddingId) {
  const SequenceId id = engine_->open(Ids{1, 2, 3}, 8);
  engine_->request_turn(id, {}, {200, {}, 10});
  const Completion got = run(*engine_).at(id);
  EXPECT_EQ(got.tokens.size(), 200u);
  for (const auto token : got.tokens) EXPECT_LT(token, 10);
}

TEST_F(EngineTest, TagsTokensWithTheVersionThatSampledThem) {
  const SequenceId id = engine_->open(Ids{1}, 8);
  engine_->request_turn(id, {}, turn(3));
  EXPECT_EQ(run(*engine_).at(id).versions, (std::vector<std::int32_t>{3, 3, 3}));
}

TEST_F(EngineTest, GoesOnWithNewerWeightsInTheMiddleOfATurn) {
  const Ids prompt{1, 2, 3};
  const Completion expected = alone(prompt, 8, 12);
  const SequenceId id = engine_->open(prompt, 8);
  engine_->request_turn(id, {}, turn(12));
  for (int i = 0; i < 6; ++i) engine_->step();          // the first one reads the prompt
  engine_->load(4, source_of(model_.weights.tensors));  // the same, to tell what the swap changes
  const Completion swapped = run(*engine_).at(id);
  EXPECT_EQ(swapped.tokens, expected.tokens);
  EXPECT_EQ(swapped.logprobs, expected.logprobs);
  EXPECT_EQ(swapped.versions, (std::vector<std::int32_t>{3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4}));

  const TinyModel other(8);
  engine_->request_turn(id, {}, turn(4));
  engine_->load(5, source_of(other.weights.tensors));
  const Completion newer = run(*engine_).at(id);
  EXPECT_EQ(newer.versions, (std::vector<std::int32_t>{5, 5, 5, 5}));
  EXPECT_EQ(newer.prefill_tokens, 0) << "what is in the cache stays";
  const SequenceId fresh = engine_->open(prompt, 8);
  engine_->request_turn(fresh, {}, turn(12));
  const Completion anew = run(*engine_).at(fresh);
  EXPECT_EQ(anew.prefill_tokens, 3) << "a new rollout is of the new policy alone";
  EXPECT_NE(anew.tokens, expected.tokens);
}

TEST_F(EngineTest, ServesMoreSequencesThanABatchHolds) {
  const auto engine = make(400, /*max_batch=*/3);
  std::vector<SequenceId> ids;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    ids.push_back(engine->open(Ids{1, 2, 3}, seed));
    engine->request_turn(ids.back(), {}, turn(6));
  }
  const auto done = run(*engine);
  ASSERT_EQ(done.size(), 10u);
  EXPECT_EQ(done.at(ids[7]).tokens, alone({1, 2, 3}, 7, 6).tokens);
}

TEST_F(EngineTest, RefusesAnIdOutsideTheVocabulary) {
  EXPECT_THROW(engine_->open(Ids{1, 101}, 1), Error);
  EXPECT_THROW(engine_->open(Ids{}, 1), Error);
}

TEST_F(EngineTest, ForgetsAClosedSequence) {
  const SequenceId id = engine_->open(Ids{1, 2}, 1);
  engine_->request_turn(id, {}, turn(50));
  engine_->step();
  engine_->close(id);
  EXPECT_FALSE(engine_->has_work());
  EXPECT_THROW(engine_->length(id), Error);
}

}  // namespace
}  // namespace rollcall
