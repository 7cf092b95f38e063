// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "comms/communicator.h"
#include "comms/error.h"
#include "copied_weights.h"
#include "tiny_model.h"
#include "trainer/learner.h"
#include "trainer/shard_layout.h"

namespace rollcall {
namespace {

using testing::Each;
using testing::ElementsAre;

constexpr std::int64_t kParameters = 20'001;

TEST(ShardLayout, GivesEveryParameterToOneMember) {
  for (const std::int64_t parameters : {std::int64_t{1}, std::int64_t{511}, kParameters}) {
    for (const int members : {1, 2, 3, 8}) {
      const ShardLayout layout(parameters, members);
      EXPECT_GE(layout.floats(), parameters);
      EXPECT_LT(layout.floats(), parameters + members);
      std::vector<float> all(static_cast<std::size_t>(layout.floats()));
      std::iota(all.begin(), all.end(), 0.0F);
      std::vector<float> put(all.size(), -1);
      for (int member = 0; member < members; ++member) {
        const auto shard = layout.shard_of(std::span<const float>(all), member);
        EXPECT_EQ(static_cast<std::int64_t>(shard.size()), layout.shard_floats());
        layout.put_shard(shard, member, put);
      }
      EXPECT_EQ(put, all) << parameters << " parameters, " << members << " members";
    }
  }
}

TEST(ShardLayout, FindsTheBucketsOfAParameter) {
  const ShardLayout layout(kParameters, 2);
  ASSERT_GE(layout.buckets(), 16);
  const std::int64_t border = layout.bucket(3).begin;
  const auto buckets_of = [&](std::int64_t begin, std::int64_t size) {
    const auto found = layout.buckets_of({begin, size});
    return std::vector<std::int64_t>{found.begin, found.size};
  };
  EXPECT_THAT(buckets_of(border, 1), ElementsAre(3, 1));
  EXPECT_THAT(buckets_of(border - 1, 1), ElementsAre(2, 1));
  EXPECT_THAT(buckets_of(border - 1, 2), ElementsAre(2, 2));
  EXPECT_THAT(buckets_of(0, kParameters), ElementsAre(0, layout.buckets()));
}

// The first of two learners, whose fellow gives nothing: what it gave, and when.
class First : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 2; }
  void barrier() override {}
  void all_sum(std::span<float>) override {}
  void reduce_scatter_sum(std::span<float> values) override {
    given.insert(given.begin(), values.begin(), values.end());
    ++sums;
  }
  void all_gather(std::span<float>) override {}
  void broadcast(std::string&) override {}
  void all_sum_host(std::span<double>) override {
    sums_before_others = std::min(sums, sums_before_others);
  }

  std::vector<float> given;  // the buckets in their order: the last is summed first
  int sums = 0, sums_before_others = 1 << 20;
};

struct Kind {
  const char* name;
  at::ScalarType dtype;
  bool lora, recomputed;
};

class GradientSumTest : public testing::TestWithParam<Kind> {
 protected:
  GradientSumTest() {
    for (int s = 0; s < 3; ++s) {
      auto& tokens = tokens_[s];
      for (int i = 0; i < 10 + s; ++i) tokens.push_back((s * 13 + i * 7) % 90);
      is_action_[s].assign(tokens.size(), 0);
      std::fill(is_action_[s].begin() + 6, is_action_[s].end(), 1);
      behavior_[s].assign(tokens.size(), -2.0f);
      sequences_.push_back({tokens, is_action_[s], behavior_[s], 6, s, 1.0});
    }
    batches_ = pack_sequences(sequences_, 12);
  }

  TrainedPolicy policy() const {
    if (!GetParam().lora) return TinyModel(5).weights;
    LoraAdapter adapter = make_lora_adapter(tiny_spec(), {});
    init_lora(1, adapter);
    return {tiny_spec(), source_of(frozen_.weights.tensors), adapter};
  }

  // Its first moment is the gradient.
  std::vector<float> gradient(Communicator& communicator, std::span<const PackedBatch> batches,
                              const std::function<void()>& between) {
    Learner learner(tiny_spec(), policy(), tiny_spec().vocab_size, communicator, GetParam().dtype);
    UpdateOptions options{{.learning_rate = 1e-3, .beta1 = 0}, 0};
    options.activation_checkpointing = GetParam().recomputed;
    stats_ = learner.update(
        batches, [](std::size_t, const TokenLogprobs& current) { return -current.logprobs.sum(); },
        options, between);
    return copied(learner.state().first_moment);
  }

  const TinyModel frozen_{5};
  std::vector<std::int32_t> tokens_[3];
  std::vector<std::uint8_t> is_action_[3];
  std::vector<float> behavior_[3];
  std::vector<TrainSequence> sequences_;
  std::vector<PackedBatch> batches_;
  UpdateStats stats_;
};

TEST_P(GradientSumTest, GoesOnDuringTheLastBackwardPassAlone) {
  ASSERT_GE(batches_.size(), 2u);
  const auto alone = make_single_communicator();
  const auto expected = gradient(*alone, batches_, [] {});
  EXPECT_FALSE(stats_.seconds_gradient_sum.has_value());
  First first;
  std::vector<int> sums;  // begun after each micro-batch
  gradient(first, batches_, [&] { sums.push_back(first.sums); });
  const ShardLayout layout(static_cast<std::int64_t>(expected.size()), 2);
  EXPECT_THAT(std::span(sums).first(sums.size() - 1), Each(0));
  EXPECT_EQ(sums.back(), layout.buckets());
  EXPECT_EQ(first.sums_before_others, layout.buckets());
  EXPECT_TRUE(stats_.seconds_gradient_sum.has_value());
  ASSERT_GE(first.given.size(), expected.size());
  first.given.resize(expected.size());
  EXPECT_EQ(first.given, expected) << "a bucket left before its gradients were complete";
}

TEST_P(GradientSumTest, TakesPartWithoutABatchOfItsOwn) {
  First first;
  gradient(first, {}, [] {});
  EXPECT_THAT(first.given, Each(0));
  EXPECT_GE(first.sums, 2);
}

INSTANTIATE_TEST_SUITE_P(Kinds, GradientSumTest,
                         testing::Values(Kind{"plain", at::kFloat, false, false},
                                         Kind{"rounded", at::kBFloat16, false, false},
                                         Kind{"recomputed", at::kFloat, false, true},
                                         Kind{"adapter", at::kFloat, true, false},
                                         Kind{"recomputed_adapter", at::kBFloat16, true, true}),
                         [](const auto& kind) { return kind.param.name; });

}  // namespace
}  // namespace rollcall
