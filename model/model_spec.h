// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/rope.h"

namespace rollcall {

// What config.json means, with every default of its model_type filled in.
struct ModelSpec {
  std::string model_type;  // "llama", "mistral", "qwen2", "qwen3", "smollm3"
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocab_size = 0;  // embedding rows, padding included
  double rms_norm_eps = 1e-6;
  double initializer_range = 0.02;  // standard deviation of fresh weights
  bool attention_bias = false;      // on q, k and v
  bool output_bias = false;         // on o
  bool mlp_bias = false;
  bool qk_norm = false;  // RMSNorm over head_dim on q and k before RoPE (Qwen3)
  bool tied = false;     // lm_head.weight is model.embed_tokens.weight
  std::int64_t max_position_embeddings = 0;
  RopeSpec rope{};
  std::vector<bool> rotary{};           // by layer, see rotates()
  std::vector<std::int64_t> windows{};  // by layer, see window()
  std::vector<std::int32_t> eos_ids;    // of generation_config.json if there, else config.json

  // A query at position p of the layer sees the keys at p - window < k <= p; 0: all up to p.
  std::int64_t window(std::int64_t layer) const {
    return windows.empty() ? 0 : windows[static_cast<std::size_t>(layer)];
  }
  // False for a layer whose queries and keys carry no positions (SmolLM3).
  bool rotates(std::int64_t layer) const {
    return rotary.empty() || rotary[static_cast<std::size_t>(layer)];
  }
};

// Reads DIR/config.json (transformers v4 and v5 spelling) and generation_config.json's eos ids.
// Throws an input Error naming file and key: unknown model_type, quantised weights, unsupported
// rope type, layer type or activation, missing or non-positive sizes, heads not divisible by
// kv_heads.
ModelSpec read_model_spec(const std::filesystem::path& dir);

using NamedShapes = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;

// Every parameter of the model in Hugging Face names and [out, in] shapes, in a fixed order
// (embedding, layers in order, norm, head unless tied). All parameter tables use this order.
NamedShapes parameter_shapes(const ModelSpec&);
std::int64_t parameter_count(const ModelSpec&);

}  // namespace rollcall
