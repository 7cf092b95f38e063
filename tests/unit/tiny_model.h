// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/TensorOperators.h>

#include "model/decoder.h"
#include "model/weights.h"

namespace rollcall {

// A random two-layer Qwen3 model with odd sizes, for tests of what holds for any weights.
inline ModelSpec tiny_spec() {
  ModelSpec spec;
  spec.model_type = "qwen3";
  spec.hidden_size = 40;
  spec.intermediate_size = 56;
  spec.layers = 2;
  spec.heads = 6;
  spec.kv_heads = 2;
  spec.head_dim = 24;
  spec.vocab_size = 101;
  spec.qk_norm = true;
  spec.tied = true;
  spec.max_position_embeddings = 512;
  return spec;
}

// The same with a window of 7, a layer without rotary positions, YaRN and biases.
inline ModelSpec tiny_windowed_spec() {
  ModelSpec spec = tiny_spec();
  spec.layers = 3;
  spec.attention_bias = true;
  spec.windows = {7, 0, 20};
  spec.rotary = {true, true, false};
  spec.rope = {.type = RopeType::kYarn,
               .factor = 4,
               .original_positions = 32,
               .beta_fast = 8,
               .attention_factor = 0.8};
  return spec;
}

struct TinyModel {
  explicit TinyModel(std::uint64_t seed, const ModelSpec& of = tiny_spec(),
                     at::ScalarType dtype = at::kFloat)
      : spec(of), weights(make_flat_weights(spec)), decoder(spec, dtype) {
    init_weights(spec, seed, weights);
    weights.flat.mul_(4);  // far from uniform predictions
    decoder.bind(leaves());
  }
  NamedTensors leaves() const {  // the weights in their memory, to be trained
    NamedTensors all;
    for (const auto& [name, t] : weights.tensors) all[name] = t.detach().set_requires_grad(true);
    return all;
  }
  ModelSpec spec;
  FlatWeights weights;
  Decoder decoder;
};

}  // namespace rollcall
