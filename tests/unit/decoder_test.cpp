// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "comms/error.h"
#include "model/safetensors.h"
#include "model/stored_weights.h"
#include "tiny_model.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(ROLLCALL_GOLDEN_DIR) / "models";

at::Tensor golden(const SafetensorsFile& file, const std::string& name) {
  for (const auto& e : file.entries()) {
    if (e.name != name) continue;
    const auto type = e.dtype == "I64" ? at::kLong : at::kFloat;
    at::Tensor t = at::empty(e.shape, type);
    std::memcpy(t.mutable_data_ptr(), e.data.data(), e.data.size());
    return t;
  }
  throw std::runtime_error("no golden tensor " + name);
}

class GoldenModel : public testing::TestWithParam<const char*> {};

TEST_P(GoldenModel, GivesTheReferenceLogitsAndGradients) {
  const fs::path dir = kModels / GetParam();
  const SafetensorsFile file(fs::path(dir.string() + ".golden.safetensors"));
  const ModelSpec spec = read_model_spec(dir);
  FlatWeights weights = make_flat_weights(spec);
  load_weights(dir, spec, weights);
  NamedTensors leaves;
  for (const auto& [name, t] : weights.tensors) leaves[name] = t.detach().set_requires_grad(true);
  Decoder decoder(spec);
  decoder.bind(leaves);
  for (int k = 0; k < 3; ++k) {
    const std::string suffix = "." + std::to_string(k);
    const at::Tensor ids = golden(file, "input_ids" + suffix).view({-1});
    const at::Tensor hidden = decoder.packed_hidden(ids, {{0, ids.numel(), -1}});
    const at::Tensor want = golden(file, "logits" + suffix);
    EXPECT_TRUE(
        at::allclose(linear(hidden, decoder.head()), want.view({ids.numel(), -1}), 1e-4, 1e-4))
        << "sequence " << k;
    if (ids.numel() < 2) continue;
    const auto got =
        token_logprobs(hidden.narrow(0, 0, ids.numel() - 1), decoder.head(),
                       ids.narrow(0, 1, ids.numel() - 1).contiguous(), spec.vocab_size);
    EXPECT_TRUE(
        at::allclose(got.logprobs, golden(file, "logprobs" + suffix).view({-1}), 1e-4, 1e-4));
    EXPECT_TRUE(at::allclose(
        got.entropy, golden(file, "entropy" + suffix).view({-1}).narrow(0, 0, ids.numel() - 1),
        1e-4, 1e-4));
    if (k > 0) continue;
    (-got.logprobs.mean()).backward();
    for (const auto& e : file.entries()) {
      if (e.name.rfind("grad.", 0) != 0) continue;
      const at::Tensor want_grad = golden(file, e.name);
      const at::Tensor grad = leaves.at(e.name.substr(5)).grad();
      const double largest = want_grad.abs().max().item<double>();
      EXPECT_TRUE(at::allclose(grad, want_grad, 1e-3, 1e-4 * largest)) << e.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenModel,
                         testing::Values("qwen3-tied", "qwen3-untied-sharded", "llama-tied-bf16",
                                         "llama3-scaled-sharded", "llama-bias-v5"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (auto& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

// The weights are exact in bfloat16 and the arithmetic is float32, so the policy is the float32
// one; a run that rounds its activations too is as far away as it is from float32.
TEST(Bfloat16Decoder, GivesTheReferenceLogitsOfABfloat16Checkpoint) {
  const fs::path dir = kModels / "llama-tied-bf16";
  const SafetensorsFile file(fs::path(dir.string() + ".golden.safetensors"));
  const ModelSpec spec = read_model_spec(dir);
  StoredWeights stored(dir, spec, at::kBFloat16);
  Decoder decoder(spec, at::kBFloat16);
  decoder.bind(stored.source());
  const at::NoGradGuard no_grad;
  const at::Tensor ids = golden(file, "input_ids.0").view({-1});
  const at::Tensor got = linear(decoder.packed_hidden(ids, {{0, ids.numel(), -1}}), decoder.head());
  EXPECT_TRUE(at::allclose(got, golden(file, "logits.0").view_as(got), 1e-4, 1e-4));
  const at::Tensor distance = (got - golden(file, "logits_bf16_run.0").view_as(got)).abs();
  EXPECT_LT(distance.max().item<double>(), 0.4406);  // bf16_run_max_difference of the reference
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

TEST(Bfloat16Decoder, EqualsAFloat32DecoderOfTheRoundedWeightsInEveryBit) {
  for (const char* name : {"qwen3-tied", "qwen3-untied-sharded", "llama-bias-v5"}) {
    const ModelSpec spec = read_model_spec(kModels / name);
    FlatWeights weights = make_flat_weights(spec);
    load_weights(kModels / name, spec, weights);
    NamedTensors rounded;
    for (const auto& [key, t] : weights.tensors) rounded[key] = t.to(at::kBFloat16).to(at::kFloat);
    const Pass half = forward_and_backward(spec, weights.tensors, at::kBFloat16);
    const Pass wide = forward_and_backward(spec, rounded, at::kFloat);
    EXPECT_TRUE(half.logits.equal(wide.logits)) << name;
    EXPECT_TRUE(half.logprobs.equal(wide.logprobs)) << name;
    for (const auto& [key, leaf] : half.leaves)  // straight through the rounding
      EXPECT_TRUE(leaf.grad().equal(wide.leaves.at(key).grad())) << name << " " << key;
    const Pass exact = forward_and_backward(spec, weights.tensors, at::kFloat);
    EXPECT_FALSE(half.logits.equal(exact.logits)) << name;
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

TEST(Decoder, NamesAParameterThatIsNotThere) {
  TinyModel model(4);
  model.weights.tensors.erase("model.layers.1.mlp.up_proj.weight");
  Decoder decoder(model.spec);
  EXPECT_THROW(decoder.bind(model.weights.tensors), Error);
}

TEST(Decoder, GivesAPackedSequenceTheBitsItHasAlone) {
  const TinyModel model(1);
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

TEST(Decoder, GivesTheSameBitsWithAndWithoutGradients) {
  const TinyModel model(2);
  const at::Tensor tokens = at::tensor({5, 6, 7, 8}, at::kLong);
  const at::Tensor with = model.decoder.packed_hidden(tokens, {{0, 4, -1}});
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(with.equal(model.decoder.packed_hidden(tokens, {{0, 4, -1}})));
}

// Kernels (float32) against ATen (float64), forward and backward, through a shared prompt.
TEST(Decoder, AgreesWithTheDoublePrecisionReferenceOnSharedPrompts) {
  const TinyModel model(3);
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
        at::allclose(floats.at(name).grad().to(at::kDouble), t.grad(), 1e-3, 1e-5 * largest + 1e-9))
        << name;
  }
}

}  // namespace
}  // namespace rollcall
