// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <string>

#include "comms/cuda_plugin.h"
#include "comms/error.h"
#include "model/engine_backend.h"
#include "model/ops.h"
#include "model/published_weights.h"
#include "model/rope.h"

namespace rollcall {
namespace {

class GpuBackend final : public EngineBackend {
 public:
  GpuBackend(const ModelSpec& spec, const EngineOptions& options, const RollcallCudaPlugin& plugin,
             int device)
      : spec_(spec), options_(options), plugin_(plugin), decoder_(nullptr, plugin.decoder_destroy) {
    std::vector<std::int64_t> windows;
    std::vector<std::uint8_t> rotates;
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      windows.push_back(spec.window(layer));
      rotates.push_back(spec.rotates(layer) ? 1 : 0);
    }
    const RollcallDecoderOptions shape{
        .hidden = spec.hidden_size,
        .intermediate = spec.intermediate_size,
        .layers = spec.layers,
        .heads = spec.heads,
        .kv_heads = spec.kv_heads,
        .head_dim = spec.head_dim,
        .vocabulary = spec.vocab_size,
        .rms_norm_eps = static_cast<float>(spec.rms_norm_eps),
        .attention_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(spec.head_dim))),
        .bfloat16 = options.dtype == at::kBFloat16 ? 1 : 0,
        .tied = spec.tied ? 1 : 0,
        .windows = windows.data(),
        .rotates = rotates.data(),
        .max_context = options.max_context,
        .max_rows = kMostPrefillRows + options.max_batch,
        .max_draws = options.max_batch,
        .cache_bytes = options.gpu_cache_bytes};
    decoder_.reset(plugin.decoder_create(&shape, device));
    if (decoder_ == nullptr) refuse("set up the policy");
    const RopeTable table = rope_table(spec.rope, spec.head_dim, options.max_context);
    set(kRollcallCosine, 0, 0, options.max_context, table.cosine.data());
    set(kRollcallSine, 0, 0, options.max_context, table.sine.data());
  }

  void load(const TensorSource& source) override {
    const at::NoGradGuard no_grad;
    set_matrix(kRollcallEmbedding, 0, 0, source("model.embed_tokens.weight"), options_.dtype);
    if (!spec_.tied || options_.dtype != at::kFloat)
      set_matrix(kRollcallHead, 0, 0,
                 source(spec_.tied ? "model.embed_tokens.weight" : "lm_head.weight"), at::kFloat);
    set_vector(kRollcallFinalNorm, 0, 0, source("model.norm.weight"));
    for (std::int64_t layer = 0; layer < spec_.layers; ++layer) load_layer(layer, source);
  }
  WeightsUse load(const PublishedWeights& weights) override {
    load(weights.source());
    return WeightsUse::kCopied;
  }

  Cache open_cache() override {
    const Cache cache = plugin_.decoder_open_cache(decoder_.get());
    if (cache < 0) refuse("open a cache");
    return cache;
  }
  void close_cache(Cache cache) override { plugin_.decoder_close_cache(decoder_.get(), cache); }

  std::int64_t page_positions() const override { return kRollcallPagePositions; }
  std::int64_t pages_free() const override { return plugin_.decoder_pages_free(decoder_.get()); }

  std::vector<SampledToken> step(const Batch& batch) override {
    std::vector<RollcallStretch> stretches;
    for (const Stretch& s : batch.stretches)
      stretches.push_back({s.cache, s.prefix, s.row, s.count});
    std::vector<std::int32_t> keep_rows, draw_rows, valid;
    std::vector<std::int64_t> keep_caches, draw_caches;
    std::vector<float> uniforms;
    for (const auto& [cache, row] : batch.keeps) {
      keep_rows.push_back(static_cast<std::int32_t>(row));
      keep_caches.push_back(cache);
    }
    for (const Draw& draw : batch.draws) {
      draw_rows.push_back(static_cast<std::int32_t>(draw.row));
      draw_caches.push_back(draw.cache);
      valid.push_back(draw.sampled_ids > 0 ? draw.sampled_ids
                                           : static_cast<std::int32_t>(spec_.vocab_size));
      uniforms.push_back(static_cast<float>(draw.uniform));
    }
    const RollcallBatch to{.rows = std::ssize(batch.tokens),
                           .tokens = batch.tokens.data(),
                           .stretches = std::ssize(stretches),
                           .stretch = stretches.data(),
                           .keeps = std::ssize(keep_rows),
                           .keep_rows = keep_rows.data(),
                           .keep_caches = keep_caches.data(),
                           .draws = std::ssize(draw_rows),
                           .draw_rows = draw_rows.data(),
                           .draw_caches = draw_caches.data(),
                           .valid_ids = valid.data(),
                           .uniforms = uniforms.data()};
    std::vector<std::int32_t> ids(batch.draws.size());
    std::vector<float> logprobs(batch.draws.size());
    if (plugin_.decoder_step(decoder_.get(), &to, ids.data(), logprobs.data()) != 0)
      refuse("sample a batch");
    std::vector<SampledToken> drawn;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0) throw Error("engine: a distribution of the policy has no finite probability");
      drawn.push_back({ids[i], logprobs[i]});
    }
    return drawn;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error("the GPU could not " + what + ": " + plugin_.last_error(),
                "rollcall doctor says what works here; policy.device: cpu samples without a GPU");
  }

  void set(RollcallParameterKind kind, std::int64_t layer, std::int64_t first_row,
           std::int64_t rows, const void* values) {
    const RollcallParameter parameter{kind, layer, first_row, rows, values};
    if (plugin_.decoder_set(decoder_.get(), &parameter) != 0) refuse("take up weights");
  }

  // Rounded to the policy's type, and sent as `type`.
  void set_matrix(RollcallParameterKind kind, std::int64_t layer, std::int64_t first_row,
                  const at::Tensor& values, at::ScalarType type) {
    if (!values.defined()) throw Error("engine: a parameter of the policy is missing");
    const at::Tensor rounded = values.to(options_.dtype).to(type).contiguous();
    set(kind, layer, first_row, rounded.size(0), rounded.const_data_ptr());
  }

  // One that the model does not have is left out.
  void set_vector(RollcallParameterKind kind, std::int64_t layer, std::int64_t first_row,
                  const at::Tensor& values) {
    if (!values.defined()) return;
    const at::Tensor rounded = policy_values(values.to(at::kFloat), options_.dtype).contiguous();
    set(kind, layer, first_row, rounded.size(0), rounded.const_data_ptr());
  }

  void load_layer(std::int64_t layer, const TensorSource& source) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const auto vector = [&](RollcallParameterKind kind, const char* name) {
      set_vector(kind, layer, 0, source(prefix + name));
    };
    const auto linear = [&](RollcallParameterKind weight, RollcallParameterKind bias,
                            std::int64_t first_row, const std::string& name) {
      set_matrix(weight, layer, first_row, source(prefix + name + ".weight"), options_.dtype);
      set_vector(bias, layer, first_row, source(prefix + name + ".bias"));
    };
    vector(kRollcallInputNorm, "input_layernorm.weight");
    vector(kRollcallPostAttentionNorm, "post_attention_layernorm.weight");
    vector(kRollcallQNorm, "self_attn.q_norm.weight");
    vector(kRollcallKNorm, "self_attn.k_norm.weight");
    const std::int64_t d = spec_.head_dim;
    linear(kRollcallQkv, kRollcallQkvBias, 0, "self_attn.q_proj");
    linear(kRollcallQkv, kRollcallQkvBias, spec_.heads * d, "self_attn.k_proj");
    linear(kRollcallQkv, kRollcallQkvBias, (spec_.heads + spec_.kv_heads) * d, "self_attn.v_proj");
    linear(kRollcallOutput, kRollcallOutputBias, 0, "self_attn.o_proj");
    linear(kRollcallGateUp, kRollcallGateUpBias, 0, "mlp.gate_proj");
    linear(kRollcallGateUp, kRollcallGateUpBias, spec_.intermediate_size, "mlp.up_proj");
    linear(kRollcallDown, kRollcallDownBias, 0, "mlp.down_proj");
  }

  ModelSpec spec_;
  EngineOptions options_;
  const RollcallCudaPlugin& plugin_;
  std::unique_ptr<RollcallDecoder, void (*)(RollcallDecoder*)> decoder_;
};

}  // namespace

std::unique_ptr<EngineBackend> make_gpu_backend(const ModelSpec& spec,
                                                const EngineOptions& options) {
  static const CudaPlugin plugin;  // for the process: an engine may be made after another
  const int devices = plugin.functions().device_count();
  if (devices < 1)
    throw Error(std::string("policy.device is cuda, and this process sees no GPU") +
                    (devices < 0 ? std::string(": ") + plugin.functions().last_error() : ""),
                "see nvidia-smi and CUDA_VISIBLE_DEVICES; in Slurm ask for GPUs; or write "
                "policy.device: cpu");
  return make_gpu_backend(spec, options, plugin.functions(), *options.gpu % devices);
}

std::unique_ptr<EngineBackend> make_gpu_backend(const ModelSpec& spec, const EngineOptions& options,
                                                const RollcallCudaPlugin& plugin, int device) {
  return std::make_unique<GpuBackend>(spec, options, plugin, device);
}

}  // namespace rollcall
