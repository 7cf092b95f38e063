// SPDX-License-Identifier: Apache-2.0
#include "model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>

#include "model/recompute.h"

namespace rollcall {
namespace {

// Llama 3's rescaling of low frequencies (models.md 1.3).
double llama3_frequency(const ModelSpec& spec, double frequency) {
  const auto original = static_cast<double>(spec.rope_original_positions);
  const double wavelength = 2 * std::numbers::pi / frequency;
  if (wavelength > original / spec.rope_low_freq_factor) return frequency / spec.rope_factor;
  if (wavelength < original / spec.rope_high_freq_factor) return frequency;
  const double smooth = (original / wavelength - spec.rope_low_freq_factor) /
                        (spec.rope_high_freq_factor - spec.rope_low_freq_factor);
  return (1 - smooth) * frequency / spec.rope_factor + smooth * frequency;
}

}  // namespace

std::vector<float> rope_inverse_frequencies(const ModelSpec& spec) {
  std::vector<float> frequencies;
  for (std::int64_t i = 0; i < spec.head_dim / 2; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(spec.head_dim);
    double frequency = std::pow(spec.rope_theta, -exponent);
    if (spec.rope_type == RopeType::kLinear) frequency /= spec.rope_factor;
    if (spec.rope_type == RopeType::kLlama3) frequency = llama3_frequency(spec, frequency);
    frequencies.push_back(static_cast<float>(frequency));
  }
  return frequencies;
}

Decoder::Decoder(const ModelSpec& spec)
    : spec_(spec), layers_(static_cast<std::size_t>(spec.layers)) {
  grow_rope_table(std::min<std::int64_t>(spec.max_position_embeddings, 1024));
}

double Decoder::attention_scale() const {
  return 1.0 / std::sqrt(static_cast<double>(spec_.head_dim));
}

void Decoder::bind(const NamedTensors& tensors, const std::map<std::string, LoraLeaves>& lora) {
  const auto optional = [&](const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? at::Tensor() : found->second;
  };
  const auto load = [&](LinearWeight& to, const std::string& name) {
    pack(to, tensors.at(name + ".weight"));
    to.bias = optional(name + ".bias");
    const auto adapter = lora.find(name);
    to.lora = adapter == lora.end() ? LoraLeaves{} : adapter->second;
  };
  embedding_ = tensors.at("model.embed_tokens.weight");
  final_norm_ = tensors.at("model.norm.weight");
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    Layer& layer = layers_[i];
    layer.input_norm = tensors.at(prefix + "input_layernorm.weight");
    layer.post_attention_norm = tensors.at(prefix + "post_attention_layernorm.weight");
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
    pack(head_, embedding_);
  } else {
    load(head_, "lm_head");
  }
}

void Decoder::grow_rope_table(std::int64_t positions) const {
  if (cosine_.defined() && positions <= cosine_.size(0)) return;
  const auto frequencies = rope_inverse_frequencies(spec_);
  const auto half = static_cast<std::int64_t>(frequencies.size());
  cosine_ = at::empty({positions, half}, at::kFloat);
  sine_ = at::empty({positions, half}, at::kFloat);
  for (std::int64_t p = 0; p < positions; ++p) {
    for (std::int64_t i = 0; i < half; ++i) {
      // The angle is rounded to float32 as in transformers; its sine and cosine are exact to
      // float32.
      const float angle = static_cast<float>(p) * frequencies[static_cast<std::size_t>(i)];
      cosine_.data_ptr<float>()[p * half + i] =
          static_cast<float>(std::cos(static_cast<double>(angle)));
      sine_.data_ptr<float>()[p * half + i] =
          static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  }
}

at::Tensor Decoder::attention_block(const Layer& layer, std::int64_t index, const at::Tensor& x,
                                    const at::Tensor& cosine, const at::Tensor& sine,
                                    const Attend& attend) const {
  const std::int64_t rows = x.size(0), d = spec_.head_dim;
  at::Tensor q = linear(x, layer.q).view({rows, spec_.heads, d});
  at::Tensor k = linear(x, layer.k).view({rows, spec_.kv_heads, d});
  const at::Tensor v = linear(x, layer.v).view({rows, spec_.kv_heads, d});
  if (layer.q_norm.defined()) {
    q = rms_norm(q, layer.q_norm, spec_.rms_norm_eps);
    k = rms_norm(k, layer.k_norm, spec_.rms_norm_eps);
  }
  q = rope(q, cosine, sine);
  k = rope(k, cosine, sine);
  return linear(attend(index, q, k, v).view({rows, spec_.heads * d}), layer.o);
}

at::Tensor Decoder::layer_forward(std::int64_t index, const at::Tensor& x, const at::Tensor& cosine,
                                  const at::Tensor& sine, const Attend& attend) const {
  const Layer& layer = layers_[static_cast<std::size_t>(index)];
  const at::Tensor normed = rms_norm(x, layer.input_norm, spec_.rms_norm_eps);
  const at::Tensor y = x + attention_block(layer, index, normed, cosine, sine, attend);
  const at::Tensor mlp_in = rms_norm(y, layer.post_attention_norm, spec_.rms_norm_eps);
  return y + linear(silu_mul(linear(mlp_in, layer.gate), linear(mlp_in, layer.up)), layer.down);
}

at::Tensor Decoder::hidden(const at::Tensor& tokens, const at::Tensor& positions,
                           const Attend& attend, Activations activations) const {
  if (tokens.numel() > 0) grow_rope_table(positions.max().item<std::int64_t>() + 1);
  at::Tensor x = at::embedding(embedding_, tokens);
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
    x = recomputed(
        [this, i, cosine, sine, attend](const at::Tensor& kept) {
          return layer_forward(i, kept, cosine, sine, attend);
        },
        x);
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
  const auto attend = [this, kept](std::int64_t, const at::Tensor& q, const at::Tensor& k,
                                   const at::Tensor& v) {
    return packed_attention(q, k, v, *kept, attention_scale());
  };
  return hidden(tokens, positions.to(tokens.device()), attend, activations);
}

}  // namespace rollcall
