// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rollcall {

class ConfigKeys;

enum class RopeType { kDefault, kLinear, kLlama3, kYarn };

// Rotary positions: at position p, pair i of a head turns by p * frequency[i].
struct RopeSpec {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                                   // how far the context is stretched
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  std::int64_t original_positions = 0;                   // llama3, yarn
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn: rotations that end its ramp
  bool truncate = true;                                  // yarn: the ramp ends at whole pairs
  double attention_factor = 1.0;                         // yarn: multiplies cosines and sines
};

// [head_dim / 2], rounded to float32 step by step as transformers does: the weights were trained
// with these, and at far positions the rounding of a frequency shows.
std::vector<float> rope_inverse_frequencies(const RopeSpec&, std::int64_t head_dim);

// [positions, head_dim / 2] each, times the attention factor.
struct RopeTable {
  std::vector<float> cosine, sine;
};
RopeTable rope_table(const RopeSpec&, std::int64_t head_dim, std::int64_t positions);

// What of config.json the rotary positions depend on besides their own keys.
struct RopeContext {
  double missing_theta = 10000.0;          // of the model's class
  std::int64_t max_positions = 0;          // max_position_embeddings
  std::vector<std::string> layer_types{};  // that occur; each once
};

// Reads transformers v4's rope_theta and rope_scaling or v5's rope_parameters, nested by layer type
// or not. Throws an input Error naming the key for what is not supported.
RopeSpec read_rope(const ConfigKeys& config, const RopeContext&);

}  // namespace rollcall
