// SPDX-License-Identifier: Apache-2.0
#include "trainer/optimizer.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "comms/error.h"

namespace rollcall {
namespace {

std::vector<float> normals(std::size_t count, unsigned seed) {
  std::mt19937 source(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(source);
  return values;
}

std::vector<float> after_steps(AdamW& optimizer, std::vector<float> masters, unsigned first_seed,
                               int steps, const AdamWOptions& options) {
  const std::vector<std::uint8_t> decay(masters.size(), 1);
  for (int i = 0; i < steps; ++i) {
    optimizer.step(masters, normals(masters.size(), first_seed + i), decay, options);
  }
  return masters;
}

TEST(AdamW, MovesByTheLearningRateInItsFirstStep) {
  AdamW optimizer(2);
  std::vector<float> masters{1.0f, 1.0f};
  const std::vector<float> gradients{4.0f, -0.001f};
  const std::vector<std::uint8_t> decay{0, 0};
  optimizer.step(masters, gradients, decay, {.learning_rate = 0.125, .weight_decay = 0.5});
  EXPECT_NEAR(masters[0], 0.875f, 1e-6);
  EXPECT_NEAR(masters[1], 1.125f, 1e-6);
  EXPECT_EQ(optimizer.steps(), 1);
}

TEST(AdamW, DecaysOnlyWhereItIsAsked) {
  AdamW optimizer(2);
  std::vector<float> masters{2.0f, 2.0f};
  const std::vector<float> gradients{0.0f, 0.0f};
  const std::vector<std::uint8_t> decay{1, 0};
  optimizer.step(masters, gradients, decay, {.learning_rate = 0.5, .weight_decay = 0.5});
  EXPECT_EQ(masters[0], 1.5f);
  EXPECT_EQ(masters[1], 2.0f);
}

TEST(AdamW, GivesTheSameBitsForAnyShardingAndThreadCount) {
  const std::size_t count = 100'003;
  const AdamWOptions options{.learning_rate = 1e-3};
  AdamW whole(count);
  const std::vector<float> start = normals(count, 1);
  const std::vector<float> expected = after_steps(whole, start, 7, 3, options);

  at::set_num_threads(2);
  AdamW threaded(count);
  EXPECT_EQ(after_steps(threaded, start, 7, 3, options), expected);
  at::set_num_threads(1);

  const std::size_t cut = 33'333;
  const std::vector<std::uint8_t> decay(count, 1);
  AdamW left(cut), right(count - cut);
  std::vector<float> masters = start;
  for (unsigned i = 0; i < 3; ++i) {
    const std::vector<float> g = normals(count, 7 + i);
    const std::span<float> m(masters);
    left.step(m.first(cut), std::span(g).first(cut), std::span(decay).first(cut), options);
    right.step(m.subspan(cut), std::span(g).subspan(cut), std::span(decay).subspan(cut), options);
  }
  EXPECT_EQ(masters, expected);
}

TEST(AdamW, GoesOnBitForBitAfterARestore) {
  const AdamWOptions options{.learning_rate = 1e-2};
  AdamW first(50);
  const std::vector<float> middle = after_steps(first, normals(50, 3), 10, 4, options);
  AdamW second(50);
  second.restore(first.steps(), first.first_moment(), first.second_moment());
  EXPECT_EQ(after_steps(second, middle, 20, 3, options),
            after_steps(first, middle, 20, 3, options));
}

TEST(AdamW, StaysFiniteForTinyGradients) {
  AdamW optimizer(3);
  std::vector<float> masters{1, 1, 1};
  const std::vector<float> gradients{1e-14f, 1e-30f, 0.0f};
  const std::vector<std::uint8_t> decay(3, 0);
  for (int i = 0; i < 5; ++i) optimizer.step(masters, gradients, decay, {.learning_rate = 1e-3});
  EXPECT_LT(masters[0], 0.996f);  // a gradient of 1e-14 still moves a weight (epsilon 1e-15)
  for (float master : masters) EXPECT_TRUE(std::isfinite(master));
}

TEST(AdamW, RefusesSpansOfAnotherLength) {
  AdamW optimizer(2);
  std::vector<float> masters(3);
  EXPECT_THROW(optimizer.step(masters, masters, std::vector<std::uint8_t>(3), {}), Error);
  EXPECT_THROW(optimizer.restore(1, masters, masters), Error);
  EXPECT_THROW(optimizer.restore(-1, std::vector<float>(2), std::vector<float>(2)), Error);
}

TEST(ClipFactor, BringsTheNormUnderItsBound) {
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_NEAR(clip_factor(4.0, 1.0), 0.25, 1e-6);
  EXPECT_EQ(clip_factor(4.0, 0.0), 1.0);
}

TEST(Warmup, RisesLinearlyToTheFullRate) {
  EXPECT_DOUBLE_EQ(warmup_learning_rate(1.0, 4, 0), 0.25);
  EXPECT_DOUBLE_EQ(warmup_learning_rate(1.0, 4, 2), 0.75);
  EXPECT_DOUBLE_EQ(warmup_learning_rate(1.0, 4, 3), 1.0);
  EXPECT_DOUBLE_EQ(warmup_learning_rate(1.0, 4, 100), 1.0);
  EXPECT_DOUBLE_EQ(warmup_learning_rate(1.0, 0, 0), 1.0);
}

}  // namespace
}  // namespace rollcall
