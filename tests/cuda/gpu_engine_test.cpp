// SPDX-License-Identifier: Apache-2.0
// The engine with the kernels of the GPU, run on the CPU, against the engine of the CPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "comms/error.h"
#include "emulated_plugin.h"
#include "model/engine.h"
#include "model/engine_backend.h"
#include "model/sampling.h"
#include "published_copy.h"
#include "tiny_model.h"

namespace rollcall {
namespace {

using Ids = std::vector<std::int32_t>;

ModelSpec llama_like() {
  ModelSpec spec = tiny_spec();
  spec.model_type = "llama";
  spec.heads = 4;
  spec.kv_heads = 4;
  spec.head_dim = 16;
  spec.qk_norm = false;
  spec.tied = false;
  spec.attention_bias = spec.output_bias = spec.mlp_bias = true;
  return spec;
}

// More queries of a kv head than a block of the attention holds.
ModelSpec one_kv_head() {
  ModelSpec spec = tiny_spec();
  spec.heads = 18;
  spec.kv_heads = 1;
  spec.head_dim = 34;
  return spec;
}

Ids words(int count, int first) {
  Ids ids;
  for (int i = 0; i < count; ++i) ids.push_back((first + 7 * i) % 101);
  return ids;
}

struct Turn {
  Ids tokens;
  std::vector<float> logprobs;
  std::int64_t prefill_tokens = 0;
};

class GpuEngineTest : public testing::Test {
 protected:
  static std::unique_ptr<Engine> gpu(const TinyModel& model, EngineOptions options = {200, 8}) {
    auto engine = std::make_unique<Engine>(
        model.spec, options, make_gpu_backend(model.spec, options, emulated_plugin(), 0));
    engine->load(1, source_of(model.weights.tensors));
    return engine;
  }
  static std::unique_ptr<Engine> cpu(const TinyModel& model, EngineOptions options = {200, 8}) {
    auto engine = std::make_unique<Engine>(model.spec, options);
    engine->load(1, source_of(model.weights.tensors));
    return engine;
  }

  // All turns that the engine ends from here on, by sequence.
  static void run(Engine& engine, std::map<SequenceId, Turn>& turns) {
    while (engine.has_work())
      for (auto& f : engine.step()) {
        Turn& turn = turns[f.sequence];
        turn.prefill_tokens += f.completion.prefill_tokens;
        turn.tokens.insert(turn.tokens.end(), f.completion.tokens.begin(),
                           f.completion.tokens.end());
        turn.logprobs.insert(turn.logprobs.end(), f.completion.logprobs.begin(),
                             f.completion.logprobs.end());
      }
  }

  // Two groups, one with a prompt of several pages; a tool's answer to each; one sequence that
  // comes later, and one that leaves.
  static std::map<SequenceId, Turn> story(Engine& engine) {
    std::map<SequenceId, Turn> turns;
    std::vector<SequenceId> ids;
    for (int i = 0; i < 5; ++i)
      ids.push_back(engine.open(i < 3 ? words(70, 3) : words(4, 50), 11 + i));
    for (const SequenceId id : ids) engine.request_turn(id, {}, {6, {}, 0});
    run(engine, turns);
    ids.push_back(engine.open(words(70, 3), 99));
    engine.close(ids[1]);
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (i != 1) engine.request_turn(ids[i], words(i == 2 ? 40 : 2, 20), {8, {}, 90});
    run(engine, turns);
    return turns;
  }

  static void expect_alike(const std::map<SequenceId, Turn>& one,
                           const std::map<SequenceId, Turn>& other) {
    ASSERT_EQ(one.size(), other.size());
    for (const auto& [id, turn] : one) {
      EXPECT_EQ(turn.tokens, other.at(id).tokens) << "sequence " << id;
      for (std::size_t i = 0; i < turn.logprobs.size(); ++i)
        EXPECT_NEAR(turn.logprobs[i], other.at(id).logprobs[i], 2e-4) << "sequence " << id;
    }
  }
};

TEST_F(GpuEngineTest, SamplesWhatTheCpuSamples) {
  for (const ModelSpec& spec : {tiny_spec(), tiny_windowed_spec(), llama_like(), one_kv_head()}) {
    SCOPED_TRACE(spec.model_type + ", heads " + std::to_string(spec.heads));
    const TinyModel model(5, spec);
    expect_alike(story(*cpu(model)), story(*gpu(model)));
  }
}

// The pool holds little more than one of the six sequences: they wait, are given up and computed
// again, and nothing of what they say changes.
TEST_F(GpuEngineTest, SharesASmallPool) {
  const TinyModel model(5);
  const std::int64_t page =
      2 * 2 * 32 * 24 * 2 * sizeof(float);  // k and v, heads, positions, dims, layers
  EngineOptions small{200, 8, at::kFloat, {}, 9 * page};
  const auto roomy = story(*gpu(model)), crowded = story(*gpu(model, small));
  expect_alike(roomy, crowded);
  const auto prefilled = [](const std::map<SequenceId, Turn>& turns) {
    std::int64_t sum = 0;
    for (const auto& [id, turn] : turns) sum += turn.prefill_tokens;
    return sum;
  };
  EXPECT_GT(prefilled(crowded), prefilled(roomy)) << "or nothing had to be given up";
}

// A prompt whose only part in a round is that a token is drawn behind it must not be given up for
// another's.
TEST_F(GpuEngineTest, KeepsAPromptThatIsDrawnFrom) {
  const TinyModel model(5);
  const std::int64_t page = 2 * 2 * 32 * 24 * 2 * sizeof(float);
  const EngineOptions tight{200, 8, at::kFloat, {}, 9 * page};
  std::map<SequenceId, Turn> turns[2];
  int which = 0;
  for (const auto& engine : {gpu(model, tight).release(), gpu(model).release()}) {
    const std::unique_ptr<Engine> owned(engine);
    const SequenceId a = engine->open(words(150, 3), 1), b = engine->open(words(150, 60), 2);
    engine->request_turn(a, {}, {4, {}, 0});
    engine->step();  // a's prompt is there, and its first token is next
    engine->request_turn(b, {}, {4, {}, 0});
    run(*engine, turns[which++]);
  }
  expect_alike(turns[1], turns[0]);
}

TEST_F(GpuEngineTest, RefusesAContextThatThePoolCannotHold) {
  const TinyModel model(5);
  try {
    gpu(model, {200, 8, at::kFloat, {}, 50000});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("no room for the cache of one sequence"));
  }
}

TEST_F(GpuEngineTest, TakesUpNewWeightsAndKeepsCaches) {
  const TinyModel before(5), after(6);
  const auto one = gpu(before), other = cpu(before);
  std::map<SequenceId, Turn> turns[2];
  int which = 0;
  for (Engine* engine : {one.get(), other.get()}) {
    const SequenceId id = engine->open(words(30, 1), 4);
    engine->request_turn(id, {}, {5, {}, 0});
    run(*engine, turns[which]);
    engine->load(2, source_of(after.weights.tensors));
    engine->request_turn(id, words(3, 9), {5, {}, 0});
    run(*engine, turns[which++]);
  }
  expect_alike(turns[1], turns[0]);
}

TEST_F(GpuEngineTest, TakesPublishedWeightsUpRowByRow) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const TinyModel model(5, tiny_spec(), dtype);
    const auto one = gpu(model, {200, 8, dtype}), other = gpu(model, {200, 8, dtype});
    PublishedCopy copy(model.spec, dtype, source_of(model.weights.tensors));
    EXPECT_EQ(other->load(2, PublishedWeights(model.spec, dtype, copy.bytes())),
              WeightsUse::kCopied);
    copy.overwrite();
    std::map<SequenceId, Turn> turns[2];
    int which = 0;
    for (Engine* engine : {one.get(), other.get()}) {
      const SequenceId id = engine->open(words(30, 1), 4);
      engine->request_turn(id, {}, {10, {}, 0});
      run(*engine, turns[which++]);
    }
    EXPECT_EQ(turns[0].begin()->second.tokens, turns[1].begin()->second.tokens);
    EXPECT_EQ(turns[0].begin()->second.logprobs, turns[1].begin()->second.logprobs);
  }
}

// Both round the inputs of products, keys and values; sums have another order, and the head's input
// is float32 on the GPU.
TEST_F(GpuEngineTest, IsNearTheCpuInBfloat16) {
  const TinyModel model(5, tiny_spec(), at::kBFloat16);
  const EngineOptions options{200, 8, at::kBFloat16};
  const auto one = gpu(model, options), other = cpu(model, options);
  int same = 0;
  double gap = 0;
  constexpr int kDraws = 16;
  for (int i = 0; i < kDraws; ++i) {
    std::map<SequenceId, Turn> turns[2];
    int which = 0;
    for (Engine* engine : {one.get(), other.get()}) {
      const SequenceId id = engine->open(words(40 + i, i), 70 + i);
      engine->request_turn(id, {}, {1, {}, 0});
      run(*engine, turns[which++]);
      engine->close(id);
    }
    const Turn& a = turns[0].begin()->second;
    const Turn& b = turns[1].begin()->second;
    if (a.tokens != b.tokens) continue;
    ++same;
    gap += std::abs(static_cast<double>(a.logprobs[0]) - b.logprobs[0]);
  }
  EXPECT_GE(same, kDraws * 8 / 10);
  EXPECT_LT(gap / same, 0.1) << gap / same;
}

TEST_F(GpuEngineTest, SaysWhatIsWrongWithABatch) {
  const TinyModel model(5);
  const EngineOptions options{64, 4};
  const auto backend = make_gpu_backend(model.spec, options, emulated_plugin(), 0);
  backend->load(source_of(model.weights.tensors));
  const auto cache = backend->open_cache();
  EXPECT_THROW(backend->step({{1, 2}, {{cache + 1, -1, 0, 2}}, {}, {}}), Error);
  EXPECT_THROW(backend->step({Ids(65, 1), {{cache, -1, 0, 65}}, {}, {}}), Error);
  EXPECT_THROW(backend->step({{1, 2}, {{cache, -1, 0, 1}}, {}, {}}), Error);
}

}  // namespace
}  // namespace rollcall
