// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <initializer_list>

#include "model/cpu_kernels.h"
#include "model/ops.h"
#include "model/sampling.h"

namespace rollcall {
namespace {

at::Tensor random_tensor(std::initializer_list<std::int64_t> shape, std::uint64_t seed) {
  at::Tensor t = at::empty(c10::IntArrayRef(shape.begin(), shape.size()), at::kFloat);
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data_ptr<float>()[i] =
        static_cast<float>(uniform_draw(seed, static_cast<std::uint64_t>(i)) * 2 - 1);
  return t;
}

TEST(PackedWeight, UnpacksToWhatItWas) {
  for (const std::int64_t out : {1, 31, 32, 33, 100}) {
    for (const std::int64_t in : {1, 32, 45}) {
      const at::Tensor w = random_tensor({out, in}, 1);
      LinearWeight packed;
      pack(packed, w);
      at::Tensor back = at::empty({out, in}, at::kFloat);
      unpack_weights(packed.packed.const_data_ptr<float>(), out, in, back.data_ptr<float>());
      EXPECT_TRUE(at::equal(back, w)) << out << " x " << in;
    }
  }
}

// A linear layer of 45 inputs and 70 outputs, applied to 9 rows.
class LinearTest : public testing::Test {
 protected:
  LinearTest() { pack(layer_, values_); }

  at::Tensor values_ = random_tensor({70, 45}, 2), x_ = random_tensor({9, 45}, 3);
  at::Tensor dy_ = random_tensor({9, 70}, 4), bias_ = random_tensor({70}, 5);
  LinearWeight layer_;
};

TEST_F(LinearTest, NeedsNoWeightButThePanels) {
  x_.set_requires_grad(true);
  const at::Tensor y = linear(x_, layer_);
  y.backward(dy_);
  EXPECT_TRUE(at::allclose(y, at::linear(x_, values_), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(x_.grad(), dy_.mm(values_), 1e-5, 1e-5));
}

TEST_F(LinearTest, PassesTheGradientOfThePanelsStraightToTheWeight) {
  layer_.weight = random_tensor({70, 45}, 6).set_requires_grad(true);  // not what the panels hold
  layer_.bias = bias_.clone().set_requires_grad(true);
  x_.set_requires_grad(true);
  const at::Tensor y = linear(x_, layer_);
  y.backward(dy_);
  EXPECT_TRUE(at::allclose(y, at::linear(x_, values_, bias_), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(x_.grad(), dy_.mm(values_), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(layer_.weight.grad(), dy_.t().mm(x_.detach()), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(layer_.bias.grad(), dy_.sum(0), 1e-5, 1e-5));
}

TEST_F(LinearTest, GivesTheSameBitsFrozenAndTrained) {
  const at::Tensor frozen = linear(x_, layer_);
  layer_.weight = values_.clone().set_requires_grad(true);
  EXPECT_TRUE(at::equal(linear(x_, layer_), frozen));
}

TEST_F(LinearTest, ScoresTokensWithAFrozenHead) {
  const at::Tensor targets = at::tensor({1, 2, 3, 4, 5, 6, 7, 8, 9}, at::kLong);
  const auto run = [&](bool trained) {
    layer_.weight = trained ? values_.clone().set_requires_grad(true) : at::Tensor();
    const at::Tensor hidden = x_.clone().set_requires_grad(true);
    const at::Tensor logprobs = token_logprobs(hidden, layer_, targets, 68).logprobs;
    logprobs.sum().backward();
    return std::pair(logprobs.detach(), hidden.grad());
  };
  const auto frozen = run(false), trained = run(true);
  EXPECT_TRUE(at::equal(frozen.first, trained.first));
  EXPECT_TRUE(at::equal(frozen.second, trained.second));
  EXPECT_GT(layer_.weight.grad().abs().sum().item<float>(), 0);
}

}  // namespace
}  // namespace rollcall
