// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "model/safetensors.h"
#include "model/stored_weights.h"
#include "tiny_model.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(ROLLCALL_GOLDEN_DIR) / "models";

at::Tensor tensor_of(const SafetensorsFile& file, const std::string& name) {
  for (const auto& e : file.entries()) {
    if (e.name != name) continue;
    const auto type = e.dtype == "I64" ? at::kLong : at::kFloat;
    at::Tensor t = at::empty(e.shape, type);
    std::memcpy(t.mutable_data_ptr(), e.data.data(), e.data.size());
    return t;
  }
  throw std::runtime_error("no golden tensor " + name);
}

class GoldenModel : public testing::TestWithParam<const char*> {
 protected:
  GoldenModel()
      : dir_(kModels / GetParam()),
        file_(fs::path(dir_.string() + ".golden.safetensors")),
        facts_(nlohmann::json::parse(std::ifstream(dir_.string() + ".golden.json"))),
        spec_(read_model_spec(dir_)),
        decoder_(spec_) {
    FlatWeights weights = make_flat_weights(spec_);
    load_weights(dir_, spec_, weights);
    for (const auto& [name, t] : weights.tensors)
      leaves_[name] = t.detach().clone().set_requires_grad(true);
    decoder_.bind(leaves_);
  }

  at::Tensor golden(const std::string& name, std::size_t sequence) const {
    return tensor_of(file_, name + "." + std::to_string(sequence));
  }

  at::Tensor hidden(const at::Tensor& ids) const {
    return decoder_.packed_hidden(ids, {{0, ids.numel(), -1}});
  }

  TokenLogprobs scores(const at::Tensor& ids) const {
    const std::int64_t n = ids.numel() - 1;
    return token_logprobs(hidden(ids).narrow(0, 0, n), decoder_.head(),
                          ids.narrow(0, 1, n).contiguous(), spec_.vocab_size);
  }

  fs::path dir_;
  SafetensorsFile file_;
  nlohmann::json facts_;
  ModelSpec spec_;
  NamedTensors leaves_;
  Decoder decoder_;
};

TEST_P(GoldenModel, GivesTheReferenceLogitsAndLogProbabilities) {
  for (std::size_t k = 0; k < facts_["sequences"].size(); ++k) {
    const at::Tensor ids = golden("input_ids", k).view({-1});
    EXPECT_TRUE(at::allclose(linear(hidden(ids), decoder_.head()),
                             golden("logits", k).view({ids.numel(), -1}), 1e-4, 1e-4))
        << "sequence " << k;
    if (ids.numel() < 2) continue;
    const auto got = scores(ids);
    const at::Tensor entropy = golden("entropy", k).view({-1}).narrow(0, 0, ids.numel() - 1);
    EXPECT_TRUE(at::allclose(got.logprobs, golden("logprobs", k).view({-1}), 1e-4, 1e-4));
    EXPECT_TRUE(at::allclose(got.entropy, entropy, 1e-4, 1e-4));
  }
}

TEST_P(GoldenModel, GivesTheReferenceGradients) {
  const at::Tensor nll = -scores(golden("input_ids", 0).view({-1})).logprobs.mean();
  EXPECT_NEAR(nll.item<double>(), facts_["nll"].get<double>(), 1e-4);
  nll.backward();
  for (const auto& name : facts_["grads"]) {
    const at::Tensor want = tensor_of(file_, "grad." + name.get<std::string>());
    const double largest = want.abs().max().item<double>();
    EXPECT_TRUE(at::allclose(leaves_.at(name).grad(), want, 1e-3, 1e-4 * largest)) << name;
  }
  ASSERT_EQ(facts_["grad_norms"].size(), leaves_.size());
  for (const auto& [name, norm] : facts_["grad_norms"].items()) {
    // The reference's embedding takes no gradient for the padding id, which this text contains.
    if (dir_.filename() == "llama-tied-bf16" && name == "model.embed_tokens.weight") continue;
    EXPECT_NEAR(leaves_.at(name).grad().norm().item<double>() / norm.get<double>(), 1, 1e-3)
        << name;
  }
}

TEST_P(GoldenModel, GoesOnGreedilyAsTheReferenceDoes) {
  const at::NoGradGuard no_grad;
  const auto& greedy = facts_["greedy"];
  at::Tensor ids = golden("input_ids", greedy["prompt_sequence"].get<std::size_t>()).view({-1});
  for (const std::int64_t want : greedy["ids"]) {
    const at::Tensor last = hidden(ids).narrow(0, ids.numel() - 1, 1);
    const at::Tensor best = linear(last, decoder_.head()).argmax().view({1});
    ASSERT_EQ(best.item<std::int64_t>(), want) << "at position " << ids.numel();
    ids = at::cat({ids, best}, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenModel,
                         testing::Values("llama-bias-v5", "llama-tied-bf16",
                                         "llama3-scaled-sharded", "mistral-window",
                                         "qwen2-tied-window", "qwen2-untied", "qwen3-tied",
                                         "qwen3-untied-sharded", "qwen3-yarn", "smollm3-nope"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (auto& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

// The reference computed a bfloat16 checkpoint in float32, and in bfloat16: our bfloat16 policy is
// to be nearer to the first than the second is, whose sums and norms are rounded as well.
TEST(Bfloat16Decoder, IsNearerToTheReferenceThanItsOwnBfloat16) {
  const fs::path dir = kModels / "llama-tied-bf16";
  const SafetensorsFile file(fs::path(dir.string() + ".golden.safetensors"));
  const ModelSpec spec = read_model_spec(dir);
  const at::NoGradGuard no_grad;
  const at::Tensor ids = tensor_of(file, "input_ids.0").view({-1});
  const auto logits = [&](at::ScalarType dtype) {
    StoredWeights stored(dir, spec, dtype);
    Decoder decoder(spec, dtype);
    decoder.bind(stored.source());
    return linear(decoder.packed_hidden(ids, {{0, ids.numel(), -1}}), decoder.head());
  };
  const at::Tensor wide = logits(at::kFloat), half = logits(at::kBFloat16);
  const at::Tensor reference = tensor_of(file, "logits.0").view_as(wide);
  const auto distance = [&](const at::Tensor& other) {
    return (other.view_as(reference) - reference).square().mean().sqrt().item<double>();
  };
  EXPECT_TRUE(at::allclose(wide, reference, 1e-4, 1e-4));
  EXPECT_LT(distance(half), 0.75 * distance(tensor_of(file, "logits_bf16_run.0")));
  EXPECT_GT(distance(half), distance(wide));
}

struct Pass {
  at::Tensor logits, logprobs;
  NamedTensors leaves;  // with gradients
};

Pass forward_and_backward(const ModelSpec& spec, const NamedTensors& weights,
                          at::ScalarType dtype) {
  Pass pass;
  for (const auto& [name, t] : weights) pass.leaves[name] = t.clone().set_requires_grad(true);
  Decoder decoder(spec, dtype);
  decoder.bind(pass.leaves);
  const at::Tensor ids = at::tensor({3, 1, 4, 1, 5, 9, 2, 6}, at::kLong);
  const at::Tensor hidden = decoder.packed_hidden(ids, {{0, 8, -1}});
  pass.logits = linear(hidden, decoder.head()).detach();
  pass.logprobs = token_logprobs(hidden, decoder.head(), ids, spec.vocab_size).logprobs;
  pass.logprobs.sum().backward();
  return pass;
}

// The inputs of products are rounded to eight bits, forward and backward, and gradients go straight
// through to the leaves.
TEST(Bfloat16Decoder, ComesCloseToAFloat32DecoderOfTheRoundedWeights) {
  const auto close = [](const at::Tensor& got, const at::Tensor& expected) {
    const auto size = [](const at::Tensor& t) { return t.norm().item<double>(); };
    return size(got - expected) < 0.03 * size(expected);
  };
  for (const char* name : {"qwen3-tied", "qwen3-untied-sharded", "llama-bias-v5"}) {
    const ModelSpec spec = read_model_spec(kModels / name);
    FlatWeights weights = make_flat_weights(spec);
    load_weights(kModels / name, spec, weights);
    NamedTensors rounded;
    for (const auto& [key, t] : weights.tensors) rounded[key] = t.to(at::kBFloat16).to(at::kFloat);
    const Pass half = forward_and_backward(spec, weights.tensors, at::kBFloat16);
    const Pass wide = forward_and_backward(spec, rounded, at::kFloat);
    EXPECT_TRUE(close(half.logits, wide.logits)) << name;
    EXPECT_TRUE(close(half.logprobs, wide.logprobs)) << name;
    for (const auto& [key, leaf] : half.leaves)
      EXPECT_TRUE(close(leaf.grad(), wide.leaves.at(key).grad())) << name << " " << key;
    EXPECT_FALSE(half.logits.equal(wide.logits)) << name;
  }
}

TEST(Decoder, KeepsNoTensorThatNeedsNoGradient) {
  TinyModel model(4);
  Decoder decoder(model.spec);
  decoder.bind(model.weights.tensors);  // no leaves
  const at::Tensor tokens = at::tensor({5, 6, 7}, at::kLong);
  const at::NoGradGuard no_grad;
  const at::Tensor before = decoder.packed_hidden(tokens, {{0, 3, -1}});
  model.weights.flat.fill_(0);
  EXPECT_TRUE(decoder.packed_hidden(tokens, {{0, 3, -1}}).equal(before));
}

// Of all tensors that live.
class CountedBytes : public c10::Allocator {
 public:
  CountedBytes() : base_(c10::GetCPUAllocator()) { c10::SetAllocator(at::kCPU, this, 1); }
  ~CountedBytes() override { c10::SetAllocator(at::kCPU, base_, 1); }
  CountedBytes(const CountedBytes&) = delete;
  CountedBytes& operator=(const CountedBytes&) = delete;

  c10::DataPtr allocate(std::size_t size) override {
    bytes_ += static_cast<std::int64_t>(size);
    auto* block = new Block{base_->allocate(size), size, this};
    return {block->memory.get(), block, &release, at::kCPU};
  }
  void copy_data(void* to, const void* from, std::size_t size) const override {
    std::memcpy(to, from, size);
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Block {
    c10::DataPtr memory;
    std::size_t size;
    CountedBytes* counter;
  };
  static void release(void* context) {
    const std::unique_ptr<Block> block(static_cast<Block*>(context));
    block->counter->bytes_ -= static_cast<std::int64_t>(block->size);
  }

  c10::Allocator* base_;
  std::int64_t bytes_ = 0;
};

TEST(Decoder, KnowsWhatAForwardPassKeeps) {
  ModelSpec plain = tiny_spec();
  plain.qk_norm = false;
  plain.layers = 4;
  for (const ModelSpec& spec : {tiny_spec(), plain}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const TinyModel model(5, spec, dtype);
      const at::Tensor tokens = at::zeros({300}, at::kLong);
      const CountedBytes counted;
      const std::int64_t before = counted.bytes();
      const at::Tensor hidden = model.decoder.packed_hidden(tokens, {{0, 300, -1}});
      const auto kept = static_cast<double>(counted.bytes() - before);
      EXPECT_NEAR(static_cast<double>(model.decoder.kept_bytes(300)) / kept, 1, 0.1);
    }
  }
}

TEST(Decoder, NamesAParameterThatIsNotThere) {
  TinyModel model(4);
  model.weights.tensors.erase("model.layers.1.mlp.up_proj.weight");
  Decoder decoder(model.spec);
  EXPECT_THROW(decoder.bind(model.weights.tensors), Error);
}

class TinyDecoder : public testing::TestWithParam<ModelSpec> {};

TEST_P(TinyDecoder, GivesAPackedSequenceTheBitsItHasAlone) {
  const TinyModel model(1, GetParam());
  const at::NoGradGuard no_grad;
  const at::Tensor prompt = at::tensor({5, 6, 7, 8, 9, 10, 11}, at::kLong);
  const at::Tensor a = at::tensor({1, 2, 3}, at::kLong), b = at::tensor({4, 3, 2, 1, 0}, at::kLong);
  const at::Tensor packed =
      model.decoder.packed_hidden(at::cat({prompt, a, b}, 0), {{0, 7, -1}, {7, 3, 0}, {10, 5, 0}});
  const at::Tensor alone =
      model.decoder.packed_hidden(at::cat({prompt, b}, 0), {{0, 7, -1}, {7, 5, 0}});
  EXPECT_TRUE(packed.narrow(0, 10, 5).equal(alone.narrow(0, 7, 5)));
  EXPECT_TRUE(packed.narrow(0, 0, 7).equal(alone.narrow(0, 0, 7)));
}

TEST_P(TinyDecoder, GivesTheSameBitsWithAndWithoutGradients) {
  const TinyModel model(2, GetParam());
  const at::Tensor tokens = at::tensor({5, 6, 7, 8}, at::kLong);
  const at::Tensor with = model.decoder.packed_hidden(tokens, {{0, 4, -1}});
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(with.equal(model.decoder.packed_hidden(tokens, {{0, 4, -1}})));
}

// Kernels (float32) against ATen (float64), forward and backward, through a shared prompt.
TEST_P(TinyDecoder, AgreesWithTheDoublePrecisionReferenceOnSharedPrompts) {
  const TinyModel model(3, GetParam());
  NamedTensors doubles, floats;
  for (const auto& [name, t] : model.weights.tensors) {
    doubles[name] = t.to(at::kDouble).set_requires_grad(true);
    floats[name] = t.detach().clone().set_requires_grad(true);
  }
  const std::vector<Segment> segments{{0, 5, -1}, {5, 4, 0}, {9, 17, 0}, {26, 3, -1}, {29, 0, 3}};
  at::Tensor tokens = at::empty({29}, at::kLong);
  for (int i = 0; i < 29; ++i)
    tokens.data_ptr<std::int64_t>()[i] = (i * 7 + 3) % model.spec.vocab_size;
  const at::Tensor rows = at::tensor({4, 5, 6, 20, 28}, at::kLong),
                   targets = at::tensor({1, 2, 3, 4, 5}, at::kLong);
  const auto run = [&](const NamedTensors& parameters) {
    Decoder decoder(model.spec);
    decoder.bind(parameters);
    const auto hidden = decoder.packed_hidden(tokens, segments).index_select(0, rows);
    const auto result = token_logprobs(hidden, decoder.head(), targets, model.spec.vocab_size - 3);
    (result.logprobs * at::tensor({1.0, -2.0, 0.5, 1.5, 3.0}).to(result.logprobs.scalar_type()))
        .sum()
        .backward();
    return result.logprobs.detach().to(at::kDouble);
  };
  EXPECT_TRUE(at::allclose(run(floats), run(doubles), 1e-5, 1e-5));
  for (const auto& [name, t] : doubles) {
    const double largest = t.grad().abs().max().item<double>();
    EXPECT_TRUE(
        at::allclose(floats.at(name).grad().to(at::kDouble), t.grad(), 1e-3, 3e-5 * largest + 1e-9))
        << name;
  }
}

// States of some rows, and the gradients of the weights when these are pulled at.
struct RowsPass {
  at::Tensor hidden;
  NamedTensors gradients;
};

RowsPass rows_pass(const TinyModel& model, at::ScalarType type, bool of_all) {
  const auto held = type == at::kDouble ? type : at::kFloat;
  NamedTensors leaves;
  for (const auto& [name, t] : model.weights.tensors)
    leaves[name] =
        t.detach().to(held, /*non_blocking=*/false, /*copy=*/true).set_requires_grad(true);
  Decoder decoder(model.spec, type == at::kBFloat16 ? type : at::kFloat);
  decoder.bind(leaves);
  const std::vector<Segment> segments{{0, 5, -1}, {5, 4, 0}, {9, 17, 0}, {26, 3, -1}, {29, 6, 3}};
  const at::Tensor tokens = (at::arange(35) * 7 + 3) % model.spec.vocab_size;
  const at::Tensor rows = at::tensor({20, 4, 5, 4, 30, 6, 28, 31}, at::kLong);
  const auto pass = [&](const at::Tensor& hidden) {
    const at::Tensor pull =
        at::arange(hidden.numel()).view_as(hidden).to(hidden.scalar_type()).sin();
    (hidden * pull).sum().backward();
    return hidden.detach();
  };
  RowsPass result{pass(of_all ? decoder.packed_hidden(tokens, segments).index_select(0, rows)
                              : decoder.packed_hidden(tokens, segments, Activations::kKept, rows)),
                  {}};
  for (const auto& [name, leaf] : leaves) result.gradients[name] = leaf.grad().to(at::kDouble);
  return result;
}

TEST_P(TinyDecoder, ComputesTheLastLayerOfWantedRowsAsOfAll) {
  const TinyModel model(3, GetParam());
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    EXPECT_TRUE(rows_pass(model, type, false).hidden.equal(rows_pass(model, type, true).hidden));
  const RowsPass reference = rows_pass(model, at::kDouble, true);
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    for (const auto& [name, gradient] : rows_pass(model, type, false).gradients) {
      const at::Tensor& expected = reference.gradients.at(name);
      const double largest = expected.abs().max().item<double>();
      EXPECT_TRUE(at::allclose(gradient, expected, 1e-3, 3e-5 * largest + 1e-9)) << name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layouts, TinyDecoder, testing::Values(tiny_spec(), tiny_windowed_spec()),
                         [](const auto& test) {
                           return test.param.windows.empty() ? "plain" : "windowed";
                         });

at::Tensor tiny_hidden(const ModelSpec& spec) {
  const TinyModel model(4, spec);
  const at::NoGradGuard no_grad;
  at::Tensor tokens = at::empty({60}, at::kLong);
  for (int i = 0; i < 60; ++i) tokens.data_ptr<std::int64_t>()[i] = i * 7 % spec.vocab_size;
  return model.decoder.packed_hidden(tokens, {{0, 23, -1}, {23, 20, 0}, {43, 17, 0}});
}

TEST(SlidingWindow, GivesTheBitsOfFullAttentionWhereItCoversEverything) {
  ModelSpec spec = tiny_spec();
  const at::Tensor full = tiny_hidden(spec);
  spec.windows = {43, 1000};  // the longest sequence has 43 positions
  EXPECT_TRUE(tiny_hidden(spec).equal(full));
  spec.windows = {42, 1000};
  const at::Tensor shorter = tiny_hidden(spec);
  EXPECT_TRUE(shorter.narrow(0, 0, 42).equal(full.narrow(0, 0, 42)));
  EXPECT_FALSE(shorter[42].equal(full[42]));  // position 42 no longer sees position 0
}

// With a window of 1 a query sees itself alone, so that no token depends on another.
TEST(SlidingWindow, CountsTheQuerysOwnPosition) {
  ModelSpec spec = tiny_spec();
  spec.windows = {1, 1};
  const TinyModel model(4, spec);
  const at::NoGradGuard no_grad;
  const auto last = [&](std::int64_t before) {
    return model.decoder.packed_hidden(at::tensor({before, std::int64_t{8}}), {{0, 2, -1}})[1];
  };
  EXPECT_TRUE(last(1).equal(last(77)));
}

// What a query of one key sees does not depend on the query: not even rounding errors are left.
TEST(SlidingWindow, OfOneKeyGivesQueriesNoGradient) {
  ModelSpec spec = tiny_spec();
  spec.windows = {1, 1};
  const TinyModel model(4, spec);
  NamedTensors leaves;
  for (const auto& [name, t] : model.weights.tensors)
    leaves[name] = t.detach().clone().set_requires_grad(true);
  Decoder decoder(spec);
  decoder.bind(leaves);
  decoder.packed_hidden(at::tensor({5, 6, 7, 8, 9}, at::kLong), {{0, 5, -1}}).sum().backward();
  for (const auto& [name, leaf] : leaves) {
    const bool of_scores = name.find("self_attn.q_") != std::string::npos ||
                           name.find("self_attn.k_") != std::string::npos;
    EXPECT_EQ(leaf.grad().abs().max().item<float>() == 0, of_scores) << name;
  }
}

}  // namespace
}  // namespace rollcall
