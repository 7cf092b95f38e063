// SPDX-License-Identifier: Apache-2.0
#include "trainer/optimizer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr std::int64_t kGrain = 1 << 15;  // parameters per thread at least

// The per-step constants of AdamW (Loshchilov & Hutter 2019, algorithm 2), rounded once.
struct StepFactors {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float step_size;                // learning rate / (1 - beta1^t)
  float inverse_root_correction;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
  float decay;  // learning rate * weight decay
};

StepFactors factors_of(const AdamWOptions& options, std::int64_t step) {
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(step));
  return {.beta1 = static_cast<float>(options.beta1),
          .one_minus_beta1 = static_cast<float>(1 - options.beta1),
          .beta2 = static_cast<float>(options.beta2),
          .one_minus_beta2 = static_cast<float>(1 - options.beta2),
          .step_size = static_cast<float>(options.learning_rate / correction1),
          .inverse_root_correction = static_cast<float>(1 / std::sqrt(correction2)),
          .epsilon = static_cast<float>(options.epsilon),
          .decay = static_cast<float>(options.learning_rate * options.weight_decay)};
}

// Elementwise, so neither the chunks nor the vector width reach the result.
void step_range(float* __restrict master, const float* __restrict gradient,
                const std::uint8_t* __restrict decay, float* __restrict first,
                float* __restrict second, std::int64_t count, StepFactors f) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradient[i];
    const float m = f.beta1 * first[i] + f.one_minus_beta1 * g;
    const float v = f.beta2 * second[i] + f.one_minus_beta2 * g * g;
    const float shrink = f.decay * static_cast<float>(decay[i]) * master[i];
    const float denominator = std::sqrt(v) * f.inverse_root_correction + f.epsilon;
    first[i] = m;
    second[i] = v;
    master[i] = master[i] - shrink - f.step_size * m / denominator;
  }
}

void check_length(const char* what, std::size_t length, std::size_t expected) {
  if (length != expected) {
    throw Error(std::string("AdamW: ") + what + " holds " + std::to_string(length) +
                    " values, the optimizer " + std::to_string(expected),
                "the checkpoint or shard belongs to another model or number of learners");
  }
}

}  // namespace

AdamW::AdamW(std::int64_t parameters)
    : first_(static_cast<std::size_t>(parameters)), second_(static_cast<std::size_t>(parameters)) {}

void AdamW::step(std::span<float> masters, std::span<const float> gradients,
                 std::span<const std::uint8_t> decay, const AdamWOptions& options) {
  check_length("masters", masters.size(), first_.size());
  check_length("gradients", gradients.size(), first_.size());
  check_length("decay", decay.size(), first_.size());
  const StepFactors factors = factors_of(options, ++steps_);
  at::parallel_for(0, static_cast<std::int64_t>(first_.size()), kGrain,
                   [&](std::int64_t begin, std::int64_t end) {
                     step_range(masters.data() + begin, gradients.data() + begin,
                                decay.data() + begin, first_.data() + begin, second_.data() + begin,
                                end - begin, factors);
                   });
}

void AdamW::restore(std::int64_t steps, std::span<const float> first,
                    std::span<const float> second) {
  check_length("first moment", first.size(), first_.size());
  check_length("second moment", second.size(), second_.size());
  if (steps < 0) throw Error("AdamW: a negative step count", "the checkpoint is damaged");
  steps_ = steps;
  std::copy(first.begin(), first.end(), first_.begin());
  std::copy(second.begin(), second.end(), second_.begin());
}

double clip_factor(double norm, double max_norm) {
  return max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

double warmup_learning_rate(double learning_rate, std::int64_t warmup_steps, std::int64_t step) {
  if (step >= warmup_steps) return learning_rate;
  return learning_rate * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
}

}  // namespace rollcall
