// SPDX-License-Identifier: Apache-2.0
#include "model/cpu_forward.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "tiny_model.h"

namespace rollcall {
namespace {

using Values = std::vector<float>;

struct Case {
  const char* name;
  ModelSpec spec;
  at::ScalarType dtype;
};

// Large enough to wake threads for one row, with heads that they cannot share evenly.
ModelSpec wide_spec() {
  ModelSpec spec = tiny_spec();
  spec.hidden_size = 264;
  spec.intermediate_size = 520;
  spec.heads = 9;
  spec.kv_heads = 3;
  spec.head_dim = 32;
  return spec;
}

// No size is a whole number of pairs, panels or registers.
ModelSpec odd_spec() {
  ModelSpec spec = tiny_spec();
  spec.hidden_size = 41;
  spec.intermediate_size = 57;
  spec.head_dim = 34;
  spec.tied = false;
  return spec;
}

ModelSpec shallow_spec() {
  ModelSpec spec = tiny_spec();
  spec.layers = 1;
  return spec;
}

class CpuForwardTest : public testing::TestWithParam<Case> {
 protected:
  CpuForwardTest() { frozen_.bind(model_.weights.tensors); }

  KvSegment segment() const {
    return {frozen_.attention_shape(), model_.spec.layers, frozen_.dtype()};
  }

  static std::vector<std::int32_t> ids(std::int64_t first, std::int64_t count) {
    std::vector<std::int32_t> tokens;
    for (std::int64_t i = first; i < first + count; ++i)
      tokens.push_back(static_cast<std::int32_t>((5 + 7 * i) % 100));
    return tokens;
  }

  Values rows_of(const float* states, std::int64_t rows) const {
    return {states, states + rows * model_.spec.hidden_size};
  }

  // Of tokens [0, all), of which the first are a prompt, as the learner computes them.
  Values learnt(std::int64_t prompt, std::int64_t all) const {
    const auto tokens = ids(0, all);
    const at::Tensor states =
        model_.decoder
            .packed_hidden(at::tensor(std::vector<std::int64_t>(tokens.begin(), tokens.end())),
                           {{0, prompt, -1}, {prompt, all - prompt, 0}})
            .detach();
    return rows_of(states.const_data_ptr<float>(), all);
  }

  Values row(const Values& all, std::int64_t i) const {
    const auto begin = all.begin() + i * model_.spec.hidden_size;
    return {begin, begin + model_.spec.hidden_size};
  }

  TinyModel model_{7, GetParam().spec, GetParam().dtype};
  Decoder frozen_{model_.spec, GetParam().dtype};  // with panels; the model's is the learner's
};

INSTANTIATE_TEST_SUITE_P(
    Layouts, CpuForwardTest,
    testing::Values(Case{"plain", tiny_spec(), at::kFloat}, Case{"odd", odd_spec(), at::kFloat},
                    Case{"plain_bfloat16", tiny_spec(), at::kBFloat16},
                    Case{"windowed_bfloat16", tiny_windowed_spec(), at::kBFloat16},
                    Case{"odd_bfloat16", odd_spec(), at::kBFloat16},
                    Case{"shallow", shallow_spec(), at::kFloat},
                    Case{"wide", wide_spec(), at::kFloat},
                    Case{"wide_bfloat16", wide_spec(), at::kBFloat16}),
    [](const auto& test) { return test.param.name; });

// A prompt in two pieces, of the first of which nothing is wanted; then an answer token by token.
TEST_P(CpuForwardTest, GivesTheLearnersStatesOnAnyNumberOfThreads) {
  const std::int64_t prompt = 90, all = 97;
  const Values expected = learnt(prompt, all);
  const int before = at::get_num_threads();
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    const auto forward = make_cpu_forward(frozen_);
    KvSegment shared = segment(), own = segment();
    forward->hidden(ids(0, 60), {{&shared, nullptr, 60}}, {});
    const Values last = rows_of(forward->hidden(ids(60, 30), {{&shared, nullptr, 30}}, {29, 3}), 2);
    EXPECT_EQ(row(last, 0), row(expected, 89)) << threads;
    EXPECT_EQ(row(last, 1), row(expected, 63)) << threads;
    const Values two = rows_of(forward->hidden(ids(prompt, 2), {{&own, &shared, 2}}, {0, 1}), 2);
    EXPECT_EQ(row(two, 0), row(expected, 90)) << threads;
    EXPECT_EQ(row(two, 1), row(expected, 91)) << threads;
    for (std::int64_t i = prompt + 2; i < all; ++i)
      EXPECT_EQ(rows_of(forward->hidden(ids(i, 1), {{&own, &shared, 1}}, {0}), 1), row(expected, i))
          << threads;
  }
  at::set_num_threads(before);
}

// Sequences in the middle of their answers beside a prompt.
TEST_P(CpuForwardTest, GivesASequenceTheSameStatesInEveryCompany) {
  const Values expected = learnt(40, 60);
  const auto forward = make_cpu_forward(frozen_);
  KvSegment shared = segment(), other = segment();
  forward->hidden(ids(0, 40), {{&shared, nullptr, 40}}, {});
  std::vector<KvSegment> owns(6, segment());
  std::vector<std::int32_t> batch;
  std::vector<CpuForward::Stretch> stretches;
  std::vector<std::int64_t> wanted;
  for (std::size_t i = 0; i < owns.size(); ++i) {
    const auto first = ids(40, static_cast<std::int64_t>(3 * i));
    if (!first.empty()) forward->hidden(first, {{&owns[i], &shared, std::ssize(first)}}, {});
    stretches.push_back({&owns[i], &shared, 1});
    batch.push_back(ids(40 + std::ssize(first), 1)[0]);
    wanted.push_back(static_cast<std::int64_t>(i));
  }
  const auto beside = ids(0, 33);
  stretches.push_back({&other, nullptr, 33});
  batch.insert(batch.end(), beside.begin(), beside.end());
  wanted.push_back(6 + 32);
  const Values got = rows_of(forward->hidden(batch, stretches, wanted), 7);
  for (std::int64_t i = 0; i < 6; ++i) EXPECT_EQ(row(got, i), row(expected, 40 + 3 * i)) << i;
  EXPECT_EQ(row(got, 6), row(expected, 32));
}

// Products in bfloat16 take numbers below 2^-126 for zero; the residual stream does not.
TEST_P(CpuForwardTest, KeepsSubnormalNumbersOfTheResidualStream) {
  const at::NoGradGuard no_grad;
  for (auto& [name, values] : model_.weights.tensors) {
    if (name.find("embed") != std::string::npos) values.mul_(1e-39);
    if (name.find("o_proj") != std::string::npos || name.find("down") != std::string::npos)
      values.zero_();
  }
  frozen_.bind(model_.weights.tensors);
  model_.decoder.bind(model_.leaves());
  const Values expected = learnt(4, 9);
  KvSegment own = segment();
  const auto forward = make_cpu_forward(frozen_);
  const Values got =
      rows_of(forward->hidden(ids(0, 9), {{&own, nullptr, 9}}, {0, 1, 2, 3, 4, 5, 6, 7, 8}), 9);
  EXPECT_EQ(got, expected);
  EXPECT_NE(got, Values(got.size())) << "all was flushed to zero";
}

TEST_P(CpuForwardTest, ComputesLogitsAsALinearLayer) {
  const at::NoGradGuard no_grad;
  const auto forward = make_cpu_forward(frozen_);
  const at::Tensor states = at::tensor(learnt(40, 60)).view({60, -1});
  const at::Tensor expected = linear(states, frozen_.head());
  const float* got = forward->logits(states.const_data_ptr<float>(), 60);
  EXPECT_TRUE(std::equal(got, got + expected.numel(), expected.const_data_ptr<float>()));
}

}  // namespace
}  // namespace rollcall
