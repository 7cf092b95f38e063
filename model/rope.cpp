// SPDX-License-Identifier: Apache-2.0
#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace rollcall {
namespace {

// Llama 3.1's rescaling of low frequencies.
float llama3_frequency(const RopeSpec& rope, float frequency) {
  const auto original = static_cast<double>(rope.original_positions);
  const auto factor = static_cast<float>(rope.factor);
  const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
  if (wavelength > static_cast<float>(original / rope.low_freq_factor)) return frequency / factor;
  if (wavelength < static_cast<float>(original / rope.high_freq_factor)) return frequency;
  const float smooth =
      (static_cast<float>(original) / wavelength - static_cast<float>(rope.low_freq_factor)) /
      static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

// YaRN (Peng et al. 2023, section 3.2): pairs before `low` keep their frequency, pairs behind
// `high` are stretched, in between it goes linearly.
struct Ramp {
  double low, high;
};

Ramp yarn_ramp(const RopeSpec& rope, std::int64_t head_dim) {
  const auto d = static_cast<double>(head_dim);
  // The pair that makes `rotations` full turns within the original context.
  const auto pair = [&](double rotations) {
    const double turn = rotations * 2 * std::numbers::pi;
    return d * std::log(static_cast<double>(rope.original_positions) / turn) /
           (2 * std::log(rope.theta));
  };
  double low = pair(rope.beta_fast), high = pair(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, d - 1);
  return {low, low == high ? high + 0.001 : high};
}

float yarn_frequency(const RopeSpec& rope, const Ramp& ramp, std::int64_t pair, float power) {
  const float linear = (static_cast<float>(pair) - static_cast<float>(ramp.low)) /
                       static_cast<float>(ramp.high - ramp.low);
  const float kept = 1 - std::clamp(linear, 0.0F, 1.0F);
  const float stretched = 1.0F / (static_cast<float>(rope.factor) * power);
  return stretched * (1 - kept) + 1.0F / power * kept;
}

}  // namespace

std::vector<float> rope_inverse_frequencies(const RopeSpec& rope, std::int64_t head_dim) {
  const Ramp ramp = rope.type == RopeType::kYarn ? yarn_ramp(rope, head_dim) : Ramp{};
  const double theta = static_cast<float>(rope.theta);
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const auto power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    float frequency = 1.0F / power;
    if (rope.type == RopeType::kLinear) frequency /= static_cast<float>(rope.factor);
    if (rope.type == RopeType::kLlama3) frequency = llama3_frequency(rope, frequency);
    if (rope.type == RopeType::kYarn) frequency = yarn_frequency(rope, ramp, i, power);
    frequencies.push_back(frequency);
  }
  return frequencies;
}

RopeTable rope_table(const RopeSpec& rope, std::int64_t head_dim, std::int64_t positions) {
  const auto scale = static_cast<float>(rope.attention_factor);
  const auto frequencies = rope_inverse_frequencies(rope, head_dim);
  RopeTable table;
  for (std::int64_t p = 0; p < positions; ++p) {
    for (const float frequency : frequencies) {
      // The angle is rounded to float32 as in transformers; its sine and cosine are exact to
      // float32.
      const double angle = static_cast<float>(p) * frequency;
      table.cosine.push_back(static_cast<float>(std::cos(angle)) * scale);
      table.sine.push_back(static_cast<float>(std::sin(angle)) * scale);
    }
  }
  return table;
}

}  // namespace rollcall
