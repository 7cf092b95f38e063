// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rollcall {

struct AdamWOptions {
  double learning_rate = 1e-6;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-15;
  double weight_decay = 0.01;  // decoupled
};

// AdamW (Loshchilov & Hutter 2019) over a contiguous shard of fp32 masters. Same arithmetic on
// every CPU with FMA; single thread of control, deterministic.
class AdamW {
 public:
  explicit AdamW(std::int64_t parameters);

  // One step: `gradients` already summed and clipped. `decay` is 1 where weight decay applies, 0
  // for norms and biases. All spans have the constructor's length.
  void step(std::span<float> masters, std::span<const float> gradients,
            std::span<const std::uint8_t> decay, const AdamWOptions&);

  std::int64_t steps() const { return steps_; }
  std::span<float> first_moment() { return first_; }
  std::span<float> second_moment() { return second_; }
  void restore(std::int64_t steps, std::span<const float> first, std::span<const float> second);

 private:
  std::int64_t steps_ = 0;
  std::vector<float> first_, second_;
};

// Factor that brings a gradient of L2 norm `norm` under `max_norm`: min(1, max_norm / (norm +
// 1e-6)).
double clip_factor(double norm, double max_norm);

// Linear warm-up from lr/warmup_steps to lr, then constant. `step` counts from 0.
double warmup_learning_rate(double learning_rate, std::int64_t warmup_steps, std::int64_t step);

}  // namespace rollcall
