// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <utility>
#include <vector>

#include "comms/error.h"
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

// The values that a layer's panels hold, all of them or of rows [first, last).
at::Tensor unpacked(const LinearWeight& w, std::int64_t first, std::int64_t last) {
  const std::int64_t in = w.in;
  at::Tensor rows = at::empty({last - first, in}, at::kFloat);
  const void* panels = w.packed.const_data_ptr();
  if (w.packed.scalar_type() == at::kFloat) {
    unpack_weights(static_cast<const float*>(panels), in, first, last, rows.data_ptr<float>());
  } else {
    unpack_weights(static_cast<const BFloat16Pair*>(panels), in, first, last,
                   rows.data_ptr<float>());
  }
  return rows;
}

TEST(PackedWeight, UnpacksToWhatItWasOrItsRounding) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t out : {1, 31, 32, 33, 100}) {
      for (const std::int64_t in : {1, 32, 45}) {
        const at::Tensor w = random_tensor({out, in}, 1);
        const at::Tensor held = w.to(type).to(at::kFloat);
        LinearWeight packed;
        pack(packed, w, type);
        EXPECT_EQ(packed.packed.scalar_type(), type);
        EXPECT_TRUE(at::equal(unpacked(packed, 0, out), held)) << out << " x " << in;
        const std::int64_t first = out / 3, last = out - out / 4;
        EXPECT_TRUE(at::equal(unpacked(packed, first, last), held.slice(0, first, last)));
      }
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

TEST_F(LinearTest, GivesGradientsToAWeightInTraining) {
  const at::Tensor leaf = values_.clone().set_requires_grad(true);
  pack(layer_, leaf);
  layer_.bias = bias_.clone().set_requires_grad(true);
  x_.set_requires_grad(true);
  const at::Tensor y = linear(x_, layer_);
  y.backward(dy_);
  EXPECT_TRUE(at::allclose(y, at::linear(x_, values_, bias_), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(x_.grad(), dy_.mm(values_), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(leaf.grad(), dy_.t().mm(x_.detach()), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(layer_.bias.grad(), dy_.sum(0), 1e-5, 1e-5));
}

// A weight in training keeps no panels, and computes what it would from those that it kept.
TEST_F(LinearTest, GivesTheSameBitsFrozenAndTrained) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto run = [&](const at::Tensor& values) {
      const at::Tensor x = x_.clone().set_requires_grad(true);
      pack(layer_, values, type);
      const at::Tensor y = linear(x, layer_);
      y.backward(dy_);
      return std::pair(y.detach(), x.grad());
    };
    const auto frozen = run(values_);
    EXPECT_TRUE(layer_.packed.defined());
    const auto trained = run(values_.clone().set_requires_grad(true));
    EXPECT_FALSE(layer_.packed.defined());
    EXPECT_TRUE(at::equal(frozen.first, trained.first));
    EXPECT_TRUE(at::equal(frozen.second, trained.second));
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(linear(x_, layer_), frozen.first));
    EXPECT_TRUE(at::equal(linears(x_, layer_, layer_, layer_)[2], frozen.first));
  }
}

// Few rows and many, split over threads by panels and by rows.
TEST_F(LinearTest, ComputesLayersTogetherAsOneByOne) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const std::int64_t rows : {1, 5, 90}) {
      const std::int64_t in = 640;
      const at::Tensor x = random_tensor({rows, in}, 12);
      LinearWeight a, b, c;
      pack(a, random_tensor({330, in}, 13), type);
      pack(b, random_tensor({70, in}, 14), type);
      pack(c, random_tensor({330, in}, 15), type);
      b.bias = bias_;
      const auto [one, two, three] = linears(x, a, b, c);
      EXPECT_TRUE(at::equal(one, linear(x, a))) << rows;
      EXPECT_TRUE(at::equal(two, linear(x, b))) << rows;
      EXPECT_TRUE(at::equal(three, linear(x, c))) << rows;
    }
  }
}

TEST_F(LinearTest, ScoresTokensWithAFrozenHead) {
  const at::Tensor targets = at::tensor({1, 2, 3, 4, 5, 6, 7, 8, 9}, at::kLong);
  const auto run = [&](bool trained) {
    pack(layer_, trained ? values_.clone().set_requires_grad(true) : values_);
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

// More rows than there are logits of at once, each pulled at by another factor.
TEST_F(LinearTest, PullsAtWhatMadeTheLogitsAsTheFormulaSays) {
  const std::int64_t rows = 1030, in = 40, valid = 68;
  const at::Tensor states = random_tensor({rows, in}, 21), head = random_tensor({70, in}, 22),
                   factors = random_tensor({rows}, 23);
  const at::Tensor targets = at::arange(rows).remainder(valid);
  const auto leaf = [](const at::Tensor& t, at::ScalarType type, bool trained = true) {
    return t.to(type, false, /*copy=*/true).set_requires_grad(trained);
  };
  const at::Tensor hidden = leaf(states, at::kDouble), weight = leaf(head, at::kDouble);
  const at::Tensor all = at::log_softmax(at::linear(hidden, weight).narrow(1, 0, valid), 1);
  (all.gather(1, targets.unsqueeze(1)).squeeze(1) * factors).sum().backward();
  const auto error = [](const at::Tensor& found, const at::Tensor& wanted) {
    return ((found - wanted).norm() / wanted.norm()).item<double>();
  };
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const double limit = type == at::kFloat ? 1e-5 : 1e-2;
    for (const bool trained : {false, true}) {
      const at::Tensor x = leaf(states, at::kFloat), w = leaf(head, at::kFloat, trained);
      LinearWeight layer;
      pack(layer, w, type);
      (token_logprobs(x, layer, targets, valid).logprobs * factors).sum().backward();
      EXPECT_LT(error(x.grad(), hidden.grad()), limit) << type << trained;
      if (trained) {
        EXPECT_LT(error(w.grad(), weight.grad()), limit) << type;
      }
    }
  }
}

at::Tensor rounded(const at::Tensor& t) { return t.to(at::kBFloat16).to(at::kFloat); }

// Every operand of a product is rounded, and nothing else.
TEST_F(LinearTest, MultipliesInBfloat16ForwardAndBackward) {
  const at::Tensor leaf = values_.clone().set_requires_grad(true);
  pack(layer_, leaf, at::kBFloat16);
  x_.set_requires_grad(true);
  const at::Tensor y = linear(x_, layer_);
  y.backward(dy_);
  const at::Tensor x = rounded(x_.detach()), w = rounded(values_), dy = rounded(dy_);
  EXPECT_TRUE(at::allclose(y, at::linear(x, w), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(x_.grad(), dy.mm(w), 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(leaf.grad(), dy.t().mm(x), 1e-5, 1e-5));
  EXPECT_FALSE(at::allclose(y, at::linear(x_, w), 1e-5, 1e-5));
}

// More outputs and rows than are summed at a time, a number of neither that is a whole block.
TEST_F(LinearTest, SumsLargeGradientsPartByPart) {
  const std::int64_t rows = 1100, in = 37, out = 2100;
  const at::Tensor values = random_tensor({out, in}, 16), x = random_tensor({rows, in}, 17);
  const at::Tensor dy = random_tensor({rows, out}, 18);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto as_multiplied = [&](const at::Tensor& t) { return t.to(type).to(at::kFloat); };
    const at::Tensor leaf = values.clone().set_requires_grad(true);
    const at::Tensor input = x.clone().set_requires_grad(true);
    LinearWeight layer;
    pack(layer, leaf, type);
    linear(input, layer).backward(dy);
    EXPECT_TRUE(
        at::allclose(input.grad(), as_multiplied(dy).mm(as_multiplied(values)), 1e-4, 1e-4));
    EXPECT_TRUE(at::allclose(leaf.grad(), as_multiplied(dy).t().mm(as_multiplied(x)), 1e-4, 1e-4));
    const at::Tensor again = x.clone().set_requires_grad(true);
    pack(layer, values, type);
    linear(again, layer).backward(dy);
    EXPECT_TRUE(at::equal(again.grad(), input.grad())) << "of a frozen weight, by its panels";
  }
}

// Layers of one input, one of which is frozen and one unused.
TEST_F(LinearTest, GivesLayersTogetherTheGradientsOfEach) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor a = values_.clone().set_requires_grad(true);
    const at::Tensor c = random_tensor({33, 45}, 19).set_requires_grad(true);
    LinearWeight first, frozen, last;
    pack(first, a, type);
    pack(frozen, random_tensor({70, 45}, 20), type);
    pack(last, c, type);
    first.bias = bias_.clone().set_requires_grad(true);
    const at::Tensor x = x_.clone().set_requires_grad(true);
    const auto [one, two, unused] = linears(x, first, frozen, last);
    ((one + 2 * two) * dy_).sum().backward();
    const at::Tensor together = x.grad(), of_a = a.grad(), of_bias = first.bias.grad();
    EXPECT_FALSE(c.grad().defined());
    x.mutable_grad() = a.mutable_grad() = first.bias.mutable_grad() = at::Tensor();
    ((linear(x, first) + 2 * linear(x, frozen)) * dy_).sum().backward();
    EXPECT_TRUE(at::allclose(together, x.grad(), 1e-5, 1e-5));
    EXPECT_TRUE(at::equal(of_a, a.grad()));
    EXPECT_TRUE(at::equal(of_bias, first.bias.grad()));
  }
}

// Enough rows for several blocks of sums and tiles; a weight that has panels between two that need
// them.
TEST(Linears, GiveTheSameBitsOnAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  const std::int64_t rows = 601, in = 131;
  const at::Tensor values = random_tensor({rows, in}, 30);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    std::vector<at::Tensor> expected;
    for (const int threads : {1, 2, 5}) {
      at::set_num_threads(threads);
      const at::Tensor a = random_tensor({97, in}, 31).set_requires_grad(true);
      const at::Tensor b = random_tensor({33, in}, 32).set_requires_grad(true);
      const at::Tensor x = values.clone().set_requires_grad(true);
      LinearWeight first, frozen, last;
      pack(first, a, type);
      pack(frozen, random_tensor({70, in}, 33), type);
      pack(last, b, type);
      const auto [one, two, three] = linears(x, first, frozen, last);
      (one.square().sum() + two.square().sum() + three.square().sum()).backward();
      const std::vector<at::Tensor> got{one.detach(), two.detach(), three.detach(),
                                        x.grad(),     a.grad(),     b.grad()};
      if (expected.empty()) expected = got;
      for (std::size_t i = 0; i < got.size(); ++i)
        EXPECT_TRUE(got[i].equal(expected[i])) << threads << " threads, " << i;
    }
    const at::Tensor reference = policy_values(values, type);
    EXPECT_TRUE(at::allclose(expected[1],
                             reference.mm(policy_values(random_tensor({70, in}, 33), type).t()),
                             1e-4, 1e-4));
  }
  at::set_num_threads(before);
}

TEST_F(LinearTest, TakesValuesOfAnyHalfType) {
  const at::Tensor halves = values_.to(at::kBFloat16);
  LinearWeight packed, expected;
  pack(packed, halves, at::kBFloat16);
  pack(expected, halves.to(at::kFloat), at::kBFloat16);
  EXPECT_TRUE(at::equal(linear(x_, packed), linear(x_, expected)));
}

TEST(Embedding, GathersRoundedRowsAndTheirGradient) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor table = random_tensor({40, 7}, 8).set_requires_grad(true);
    const at::Tensor held = table.detach().to(type).to(at::kFloat);
    LinearWeight trained, frozen;
    pack(trained, table, type);
    pack(frozen, table.detach(), type);
    const at::Tensor ids = at::tensor({3, 39, 3}, at::kLong), dy = random_tensor({3, 7}, 9);
    const at::Tensor rows = embedding(ids, trained);
    EXPECT_TRUE(at::equal(rows, held.index_select(0, ids)));
    EXPECT_TRUE(at::equal(rows, embedding(ids, frozen)));
    rows.backward(dy);
    EXPECT_TRUE(at::equal(table.grad()[3], dy[0] + dy[2]));
    EXPECT_TRUE(at::equal(table.grad()[39], dy[1]));
    EXPECT_EQ(table.grad().count_nonzero().item<std::int64_t>(), 14);
  }
}

TEST(Embedding, RefusesIdsWithoutARow) {
  for (const bool trained : {false, true}) {
    LinearWeight layer;
    pack(layer, random_tensor({40, 7}, 8).set_requires_grad(trained));
    EXPECT_THROW(embedding(at::tensor({40}, at::kLong), layer), Error);
    EXPECT_THROW(embedding(at::tensor({-1}, at::kLong), layer), Error);
  }
}

TEST(PolicyValues, PassesGradientsStraightThroughItsRounding) {
  const at::Tensor leaf = random_tensor({5}, 10).set_requires_grad(true);
  const at::Tensor dy = random_tensor({5}, 11);
  const at::Tensor rounded = policy_values(leaf, at::kBFloat16);
  EXPECT_TRUE(at::equal(rounded, leaf.detach().to(at::kBFloat16).to(at::kFloat)));
  rounded.backward(dy);
  EXPECT_TRUE(at::equal(leaf.grad(), dy));
  EXPECT_TRUE(policy_values(leaf, at::kFloat).is_same(leaf));
}

}  // namespace
}  // namespace rollcall
