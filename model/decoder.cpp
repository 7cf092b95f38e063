// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "comms/error.h"
#include "model/published_weights.h"
#include "model/recompute.h"

namespace rollcall {
namespace {

at::Tensor required(const TensorSource& source, const std::string& name) {
  const at::Tensor values = source(name);
  if (!values.defined()) throw Error("decoder: no parameter '" + name + "' to bind");
  return values;
}

}  // namespace

Decoder::Decoder(const ModelSpec& spec, at::ScalarType dtype)
    : spec_(spec), dtype_(dtype), layers_(static_cast<std::size_t>(spec.layers)) {
  require_memory_for(parameter_count(spec), dtype);
  grow_rope_table(std::min<std::int64_t>(spec.max_position_embeddings, 1024));
}

bool Decoder::has_adapter(const Layer& layer) {
  const std::array<const LinearWeight*, 7> all{&layer.q,    &layer.k,  &layer.v,   &layer.o,
                                               &layer.gate, &layer.up, &layer.down};
  return std::ranges::any_of(all, [](const LinearWeight* w) { return w->lora.a.defined(); });
}

double Decoder::attention_scale() const {
  return 1.0 / std::sqrt(static_cast<double>(spec_.head_dim));
}

// What a layer's operators save: its input and the middle of it, queries and keys before each of
// what changes them, values, attention's output, both factors of the gated product; and the inputs
// of its linear layers, of which attention's output is there already unless it is rounded. Layers
// with an adapter keep theirs as float32.
std::int64_t Decoder::kept_bytes(std::int64_t tokens) const {
  const std::int64_t queries = spec_.heads * spec_.head_dim, keys = spec_.kv_heads * spec_.head_dim;
  const std::int64_t stages = spec_.qk_norm ? 2 : 1;
  const std::int64_t floats = 2 * spec_.hidden_size + stages * (queries + keys) + keys + queries +
                              2 * spec_.intermediate_size;
  const bool rounded = dtype_ != at::kFloat && !has_adapter(layers_.front());
  const std::int64_t inputs =
      2 * spec_.hidden_size + spec_.intermediate_size + (rounded ? queries : 0);
  const std::int64_t input_bytes = rounded ? 2 : 4;
  return tokens * spec_.layers *
         (floats * static_cast<std::int64_t>(sizeof(float)) + inputs * input_bytes);
}

void Decoder::bind(const NamedTensors& tensors) { bind(source_of(tensors)); }

void Decoder::bind(const TensorSource& source, const std::map<std::string, LoraLeaves>& lora) {
  const auto matrix = [&](LinearWeight& to, const std::string& name) {
    pack(to, required(source, name), dtype_);
  };
  bind_all(matrix, source, lora);
}

void Decoder::bind(const PublishedWeights& published) {
  if (published.dtype() != dtype_)
    throw Error("decoder: the published weights are of another type");
  const auto matrix = [&](LinearWeight& to, const std::string& name) {
    published.use_matrix(to, name);
  };
  bind_all(matrix, published.source(), {});
}

void Decoder::bind_all(const BindMatrix& matrix, const TensorSource& source,
                       const std::map<std::string, LoraLeaves>& lora) {
  const auto optional = [&](const std::string& name) {
    const at::Tensor values = source(name);
    return values.defined() ? policy_vector(values, dtype_) : at::Tensor();
  };
  const auto vector = [&](const std::string& name) {
    return policy_vector(required(source, name), dtype_);
  };
  const auto load = [&](LinearWeight& to, const std::string& name) {
    matrix(to, name + ".weight");
    to.bias = optional(name + ".bias");
    const auto adapter = lora.find(name);
    to.lora = adapter == lora.end() ? LoraLeaves{} : adapter->second;
  };
  matrix(embedding_, "model.embed_tokens.weight");
  final_norm_ = vector("model.norm.weight");
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    Layer& layer = layers_[i];
    layer.input_norm = vector(prefix + "input_layernorm.weight");
    layer.post_attention_norm = vector(prefix + "post_attention_layernorm.weight");
    layer.q_norm = optional(prefix + "self_attn.q_norm.weight");
    layer.k_norm = optional(prefix + "self_attn.k_norm.weight");
    load(layer.q, prefix + "self_attn.q_proj");
    load(layer.k, prefix + "self_attn.k_proj");
    load(layer.v, prefix + "self_attn.v_proj");
    load(layer.o, prefix + "self_attn.o_proj");
    load(layer.gate, prefix + "mlp.gate_proj");
    load(layer.up, prefix + "mlp.up_proj");
    load(layer.down, prefix + "mlp.down_proj");
  }
  if (spec_.tied) {
    head_ = embedding_;
  } else {
    load(head_, "lm_head");
  }
}

void Decoder::grow_rope_table(std::int64_t positions) const {
  if (cosine_.defined() && positions <= cosine_.size(0)) return;
  const RopeTable table = rope_table(spec_.rope, spec_.head_dim, positions);
  const auto tensor = [&](const std::vector<float>& values) {
    at::Tensor all = at::empty({positions, spec_.head_dim / 2}, at::kFloat);
    std::copy(values.begin(), values.end(), all.data_ptr<float>());
    return all;
  };
  cosine_ = tensor(table.cosine);
  sine_ = tensor(table.sine);
}

at::Tensor Decoder::attention_output(const Layer& layer, std::int64_t index, const at::Tensor& x,
                                     const at::Tensor& cosine, const at::Tensor& sine,
                                     const Attend& attend) const {
  const std::int64_t rows = x.size(0), d = spec_.head_dim;
  auto [q, k, v] = linears(x, layer.q, layer.k, layer.v);
  q = q.view({rows, spec_.heads, d});
  k = k.view({rows, spec_.kv_heads, d});
  v = v.view({rows, spec_.kv_heads, d});
  if (layer.q_norm.defined()) {
    q = rms_norm(q, layer.q_norm, spec_.rms_norm_eps);
    k = rms_norm(k, layer.k_norm, spec_.rms_norm_eps);
  }
  if (spec_.rotates(index)) {
    q = rope(q, cosine, sine);
    k = rope(k, cosine, sine);
  }
  return attend(index, q, k, v).view({rows, spec_.heads * d});
}

at::Tensor Decoder::layer_forward(std::int64_t index, const at::Tensor& x, const at::Tensor& cosine,
                                  const at::Tensor& sine, const Attend& attend) const {
  const Layer& layer = layers_[static_cast<std::size_t>(index)];
  const at::Tensor normed = rms_norm(x, layer.input_norm, spec_.rms_norm_eps);
  const at::Tensor y =
      plus_linear(x, attention_output(layer, index, normed, cosine, sine, attend), layer.o);
  const at::Tensor mlp_in = rms_norm(y, layer.post_attention_norm, spec_.rms_norm_eps);
  return plus_linear(y, gated(mlp_in, layer.gate, layer.up), layer.down);
}

at::Tensor Decoder::hidden(const at::Tensor& tokens, const at::Tensor& positions,
                           const Attend& attend, Activations activations) const {
  if (tokens.numel() > 0) grow_rope_table(positions.max().item<std::int64_t>() + 1);
  at::Tensor x = embedding(tokens, embedding_);
  const auto table = [&](const at::Tensor& all) {
    return all.to(x.options().requires_grad(false)).index_select(0, positions);
  };
  const at::Tensor cosine = table(cosine_), sine = table(sine_);
  const bool recompute = activations == Activations::kRecomputed && at::GradMode::is_enabled();
  for (std::int64_t i = 0; i < spec_.layers; ++i) {
    if (!recompute) {
      x = layer_forward(i, x, cosine, sine, attend);
      continue;
    }
    const auto again = [this, i, cosine, sine, attend](const at::Tensor& kept) {
      return layer_forward(i, kept, cosine, sine, attend);
    };
    x = recomputed(again, x);
  }
  return rms_norm(x, final_norm_, spec_.rms_norm_eps);
}

at::Tensor Decoder::packed_hidden(const at::Tensor& tokens, const std::vector<Segment>& segments,
                                  Activations activations) const {
  at::Tensor positions = at::empty({tokens.size(0)}, at::kLong);
  for (const auto& s : segments) {
    const std::int64_t first =
        s.prefix < 0 ? 0 : segments[static_cast<std::size_t>(s.prefix)].length;
    auto* to = positions.data_ptr<std::int64_t>() + s.begin;
    for (std::int64_t j = 0; j < s.length; ++j) to[j] = first + j;
  }
  // Shared, since layers that are computed again keep their attention.
  const auto kept = std::make_shared<const std::vector<Segment>>(segments);
  const auto attend = [this, kept](std::int64_t layer, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v) {
    return packed_attention(q, k, v, *kept, attention_scale(), spec_.window(layer));
  };
  return hidden(tokens, positions.to(tokens.device()), attend, activations);
}

}  // namespace rollcall
