// SPDX-License-Identifier: Apache-2.0
#include "model/recompute.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "model/lora.h"
#include "tiny_model.h"

namespace rollcall {
namespace {

// Counts the bytes of all CPU tensors made while it is there.
class CountingAllocator : public c10::Allocator {
 public:
  CountingAllocator() : plain_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, 1); }
  ~CountingAllocator() override { c10::SetCPUAllocator(plain_, 1); }

  c10::DataPtr allocate(std::size_t bytes) override {
    alive_ += bytes;
    peak_ = std::max(peak_, alive_);
    auto* block = new Block{this, bytes, plain_->allocate(bytes)};
    return {block->memory.get(), block, &release, c10::Device(c10::kCPU)};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  std::size_t alive() const { return alive_; }
  std::size_t peak() const { return peak_; }

 private:
  struct Block {
    CountingAllocator* owner;
    std::size_t bytes;
    c10::DataPtr memory;
  };
  static void release(void* context) {
    auto* block = static_cast<Block*>(context);
    block->owner->alive_ -= block->bytes;
    delete block;
  }

  c10::Allocator* plain_;
  std::size_t alive_ = 0, peak_ = 0;
};

struct RecomputedPass {
  at::Tensor loss;
  NamedTensors gradients;
  std::size_t kept_bytes = 0, peak_bytes = 0;
};

constexpr std::int64_t kTokens = 24;

// A forward and backward pass over two sequences with a prompt in common.
RecomputedPass run(ModelSpec spec, Activations activations, const LoraOptions* lora = nullptr,
                   const at::Tensor& rows = {}) {
  FlatWeights weights = make_flat_weights(spec);
  init_weights(spec, 3, weights);
  weights.flat.mul_(4);
  Decoder decoder(spec);
  NamedTensors leaves;
  const auto require = [&](const FlatWeights& trained) {
    for (const auto& [name, t] : trained.tensors) {
      leaves[name] = t.detach().set_requires_grad(true);
      leaves[name].mutable_grad() = at::zeros_like(t);  // as in training: not part of the peak
    }
  };
  LoraAdapter adapter;
  if (lora != nullptr) {
    adapter = make_lora_adapter(spec, *lora);
    init_lora(1, adapter);
    adapter.parameters.flat.add_(0.03);
    require(adapter.parameters);
    decoder.bind(with_lora(adapter, source_of(weights.tensors)), lora_leaves(adapter, leaves));
  } else {
    require(weights);
    decoder.bind(leaves);
  }
  const at::Tensor ids = at::arange(kTokens) * 5 % 101;
  RecomputedPass pass;
  {
    CountingAllocator counter;
    at::Tensor hidden =
        decoder.packed_hidden(ids, {{0, 8, -1}, {8, 9, 0}, {17, 7, 0}}, activations, rows);
    pass.kept_bytes = counter.alive();
    const at::Tensor targets = ids.roll(-1).narrow(0, 0, hidden.size(0));
    pass.loss = -token_logprobs(hidden, decoder.head(), targets, 101).logprobs.mean();
    hidden.reset();
    pass.loss.backward();
    pass.loss = pass.loss.detach().clone();
    pass.peak_bytes = counter.peak();
  }
  for (const auto& [name, leaf] : leaves) pass.gradients[name] = leaf.grad();
  return pass;
}

void expect_same(const RecomputedPass& plain, const RecomputedPass& again) {
  EXPECT_TRUE(at::equal(plain.loss, again.loss));
  ASSERT_EQ(plain.gradients.size(), again.gradients.size());
  for (const auto& [name, gradient] : plain.gradients) {
    EXPECT_GT(gradient.abs().max().item<double>(), 0) << name;
    EXPECT_TRUE(at::equal(gradient, again.gradients.at(name))) << name;
  }
}

TEST(Recompute, GivesTheSameLossAndGradientsToTheBit) {
  expect_same(run(tiny_spec(), Activations::kKept), run(tiny_spec(), Activations::kRecomputed));
}

TEST(Recompute, WorksWhereTheLastLayerIsWantedForSomeRows) {
  const at::Tensor rows = at::tensor({7, 8, 9, 7, 18, 22}, at::kLong);
  LoraOptions lora;
  for (const LoraOptions* adapter :
       {static_cast<const LoraOptions*>(nullptr), &std::as_const(lora)})
    expect_same(run(tiny_spec(), Activations::kKept, adapter, rows),
                run(tiny_spec(), Activations::kRecomputed, adapter, rows));
}

TEST(Recompute, WorksWithEverythingButAnAdapterFrozen) {
  LoraOptions lora;
  lora.rank = 3;
  expect_same(run(tiny_spec(), Activations::kKept, &lora),
              run(tiny_spec(), Activations::kRecomputed, &lora));
  lora.targets = {"model.layers.1.mlp.up_proj"};  // nothing is trained in the first layer
  expect_same(run(tiny_spec(), Activations::kKept, &lora),
              run(tiny_spec(), Activations::kRecomputed, &lora));
}

TEST(Recompute, KeepsALayersInputAlone) {
  ModelSpec spec = tiny_spec();
  spec.layers = 12;
  const RecomputedPass plain = run(spec, Activations::kKept),
                       again = run(spec, Activations::kRecomputed);
  expect_same(plain, again);
  const auto input_bytes =
      static_cast<std::size_t>(spec.layers * kTokens * spec.hidden_size) * sizeof(float);
  EXPECT_LT(again.kept_bytes, 2 * input_bytes);
  EXPECT_GT(plain.kept_bytes, 8 * input_bytes);
  EXPECT_LT(3 * again.peak_bytes, 2 * plain.peak_bytes);
}

}  // namespace
}  // namespace rollcall
