// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "model/cpu_kernels.h"
#include "model/model_spec.h"
#include "model/ops.h"
#include "model/weights.h"

namespace rollcall {

class PublishedWeights;

// What a forward pass with gradients keeps for the backward pass: all, or each layer's input alone,
// from which the layer is computed again. The results have the same bits.
enum class Activations { kKept, kRecomputed };

// A pre-norm decoder (Llama, Mistral, Qwen and SmolLM layouts): its weights, and the forward pass
// of whole sequences with gradients. CpuForward computes the same from caches, to the bit, without
// them. Single thread.
class Decoder {
 public:
  struct Layer {
    at::Tensor input_norm, post_attention_norm, q_norm, k_norm;
    LinearWeight q, k, v, o, gate, up, down;
  };

  // A policy whose weights are those bound to it, rounded to `dtype` (float32 or bfloat16) like
  // keys, values and the inputs of its products; sums and all else are float32. Throws Error if
  // they cannot fit into memory.
  explicit Decoder(const ModelSpec&, at::ScalarType dtype = at::kFloat);

  // Packs the parameters, one at a time; call again after their values change. Keeps those that
  // require gradients, as the leaves that receive them, and reads their matrices where they lie in
  // each forward and backward pass; the others need live only during the call.
  // Linear layers named in `lora` train that adapter, which their weight holds already.
  void bind(const TensorSource&, const std::map<std::string, LoraLeaves>& lora = {});
  void bind(const NamedTensors&);
  // Computes with published matrices where they lie: their memory must stay as it is until the next
  // bind(). Throws Error if they are not of this decoder's dtype.
  void bind(const PublishedWeights&);

  // tokens [T] int64 -> final hidden states [T, hidden] after the last norm, of whole sequences
  // packed by `segments`, each starting at position 0, or behind its prefix; or those of `rows` [N]
  // int64 alone, which may repeat, as [N, hidden]: of its last layer the rest are keys and values.
  // The decoder must outlive the backward pass, and bind() waits for it.
  at::Tensor packed_hidden(const at::Tensor& tokens, const std::vector<Segment>& segments,
                           Activations = Activations::kKept, const at::Tensor& rows = {}) const;

  const LinearWeight& embedding() const { return embedding_; }
  const std::vector<Layer>& layers() const { return layers_; }
  const at::Tensor& final_norm() const { return final_norm_; }
  const LinearWeight& head() const { return head_; }
  // Cosines and sines of so many positions or more, [positions, head_dim / 2] each; until the next
  // call or packed_hidden().
  struct Rotations {
    const float *cosine, *sine;
  };
  Rotations rotations(std::int64_t positions) const;
  double attention_scale() const;
  AttentionShape attention_shape() const {
    return {spec_.heads, spec_.kv_heads, spec_.head_dim, static_cast<float>(attention_scale())};
  }
  // What a forward pass of so many tokens with gradients keeps until its backward pass, about; of
  // few rows of the last layer less.
  std::int64_t kept_bytes(std::int64_t tokens) const;
  at::ScalarType dtype() const { return dtype_; }
  const ModelSpec& spec() const { return spec_; }

 private:
  // By how much rows are turned for where they stand.
  struct Turns {
    at::Tensor cosine, sine;  // [rows, head_dim / 2]
  };
  struct Places {
    std::vector<Segment> segments;  // what rows see
    Turns all;
    at::Tensor last_rows = {};  // [W] int64, ascending: those of the last layer; undefined: all
    Turns last = {};            // of them
  };

  static bool has_adapter(const Layer&);
  // `matrix` binds one by its name, `vector` gives the values of one.
  using BindMatrix = std::function<void(LinearWeight&, const std::string& name)>;
  void bind_all(const BindMatrix& matrix, const TensorSource& vector,
                const std::map<std::string, LoraLeaves>& lora);
  at::Tensor layer_forward(std::int64_t index, const at::Tensor& x, const Places&) const;
  at::Tensor attention_output(std::int64_t index, const at::Tensor& x, const at::Tensor& of_queries,
                              const Places&) const;
  void grow_rope_table(std::int64_t positions) const;

  ModelSpec spec_;
  at::ScalarType dtype_;
  LinearWeight embedding_, head_;  // the same where tied
  at::Tensor final_norm_;
  std::vector<Layer> layers_;
  mutable at::Tensor cosine_, sine_;  // [positions, head_dim / 2], grown on demand
};

}  // namespace rollcall
