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

#include "model/safetensors.h"
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
                         testing::Values("qwen2-untied", "qwen3-tied", "qwen3-untied-sharded",
                                         "llama-tied-bf16", "llama3-scaled-sharded",
                                         "llama-bias-v5"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (auto& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

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
