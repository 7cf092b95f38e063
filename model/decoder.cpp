// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <tuple>

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
    return values.defined() ? policy_values(values, dtype_) : at::Tensor();
  };
  const auto vector = [&](const std::string& name) {
    return policy_values(required(source, name), dtype_);
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
  if (cosine_.defined()) {
    if (positions <= cosine_.size(0)) return;
    positions = std::max(positions, 2 * cosine_.size(0));  // decoding asks for one more each time
  }
  const RopeTable table = rope_table(spec_.rope, spec_.head_dim, positions);
  const auto tensor = [&](const std::vector<float>& values) {
    at::Tensor all = at::empty({positions, spec_.head_dim / 2}, at::kFloat);
    std::copy(values.begin(), values.end(), all.data_ptr<float>());
    return all;
  };
  cosine_ = tensor(table.cosine);
  sine_ = tensor(table.sine);
}

Decoder::Rotations Decoder::rotations(std::int64_t positions) const {
  grow_rope_table(positions);
  return {cosine_.const_data_ptr<float>(), sine_.const_data_ptr<float>()};
}

// Of keys' and values' inputs x [T, hidden], and those of the queries, if they are others.
at::Tensor Decoder::attention_output(std::int64_t index, const at::Tensor& x,
                                     const at::Tensor& of_queries, const Places& places) const {
  const Layer& layer = layers_[static_cast<std::size_t>(index)];
  const std::int64_t rows = x.size(0), d = spec_.head_dim;
  const bool every = !of_queries.defined();
  at::Tensor q, k, v;
  if (every) {
    std::tie(q, k, v) = std::tuple_cat(linears(x, layer.q, layer.k, layer.v));
  } else {
    q = linear(of_queries, layer.q);
    std::tie(k, v) = std::tuple_cat(linears(x, layer.k, layer.v));
  }
  q = q.view({q.size(0), spec_.heads, d});
  k = k.view({rows, spec_.kv_heads, d});
  v = v.view({rows, spec_.kv_heads, d});
  if (layer.q_norm.defined()) {
    q = rms_norm(q, layer.q_norm, spec_.rms_norm_eps);
    k = rms_norm(k, layer.k_norm, spec_.rms_norm_eps);
  }
  if (spec_.rotates(index)) {
    const Turns& of_q = every ? places.all : places.last;
    q = rope(q, of_q.cosine, of_q.sine);
    k = rope(k, places.all.cosine, places.all.sine);
  }
  if (dtype_ != at::kFloat) {  // as an engine's cache holds them
    k = policy_values(k, dtype_);
    v = policy_values(v, dtype_);
  }
  return packed_attention(q, k, v, places.segments, attention_scale(), spec_.window(index),
                          every ? at::Tensor() : places.last_rows)
      .view({q.size(0), spec_.heads * d});
}

at::Tensor Decoder::layer_forward(std::int64_t index, const at::Tensor& x,
                                  const Places& places) const {
  const Layer& layer = layers_[static_cast<std::size_t>(index)];
  const auto norm = [&](const at::Tensor& in) {
    return rms_norm(in, layer.input_norm, spec_.rms_norm_eps);
  };
  at::Tensor out = x, of_queries;
  if (index + 1 == spec_.layers && places.last_rows.defined()) {
    out = distinct_rows(x, places.last_rows);
    of_queries = norm(out);
  }
  const at::Tensor y = out + linear(attention_output(index, norm(x), of_queries, places), layer.o);
  const at::Tensor mlp_in = rms_norm(y, layer.post_attention_norm, spec_.rms_norm_eps);
  const auto [gate, up] = linears(mlp_in, layer.gate, layer.up);
  return y + linear(silu_mul(gate, up), layer.down);
}

at::Tensor Decoder::packed_hidden(const at::Tensor& tokens, const std::vector<Segment>& segments,
                                  Activations activations, const at::Tensor& rows) const {
  at::Tensor positions = at::empty({tokens.size(0)}, at::kLong);
  std::int64_t most = 0;
  for (const auto& s : segments) {
    const std::int64_t first =
        s.prefix < 0 ? 0 : segments[static_cast<std::size_t>(s.prefix)].length;
    auto* to = positions.data_ptr<std::int64_t>() + s.begin;
    for (std::int64_t j = 0; j < s.length; ++j) to[j] = first + j;
    most = std::max(most, first + s.length);
  }
  grow_rope_table(most);
  at::Tensor x = rollcall::embedding(tokens, embedding_);
  const auto turns = [&](const at::Tensor& of) {
    const auto table = [&](const at::Tensor& all) {
      return all.to(x.options().requires_grad(false)).index_select(0, of.to(tokens.device()));
    };
    return Turns{table(cosine_), table(sine_)};
  };
  // Shared, since layers that are computed again keep them.
  const auto places = std::make_shared<Places>(segments, turns(positions));
  at::Tensor of_rows;  // where each is among the last layer's
  if (rows.defined()) {
    std::tie(places->last_rows, of_rows, std::ignore) =
        at::_unique2(rows, /*sorted=*/true, /*return_inverse=*/true);
    if (places->last_rows.size(0) == tokens.size(0)) {
      places->last_rows = at::Tensor();
    } else {
      places->last = turns(positions.index_select(0, places->last_rows.cpu()));
    }
  }
  const bool recompute = activations == Activations::kRecomputed && at::GradMode::is_enabled();
  for (std::int64_t i = 0; i < spec_.layers; ++i) {
    const auto layer = [this, i, places](const at::Tensor& in) {
      return layer_forward(i, in, *places);
    };
    x = recompute ? recomputed(layer, x) : layer(x);
  }
  x = rms_norm(x, final_norm_, spec_.rms_norm_eps);
  if (!rows.defined()) return x;
  const bool in_order = places->last_rows.defined() && rows.equal(places->last_rows);
  return in_order ? x : x.index_select(0, of_rows);
}

}  // namespace rollcall
