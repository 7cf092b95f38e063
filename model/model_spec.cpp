// SPDX-License-Identifier: Apache-2.0
#include "model/model_spec.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/json_depth.h"
#include "model/config_keys.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Where config.json gives no layer_types: which layers look through the sliding window.
enum class WindowRule {
  kNone,
  kAll,
  kFromMaxWindowLayers,  // on; only if use_sliding_window
  kWithoutRotation,      // the layers without rotary positions; only if use_sliding_window
};

// What a model_type means where config.json is silent, and which of its keys the class reads
// (transformers 5.23, configuration_*.py).
struct Family {
  std::string_view model_type;
  std::int64_t max_positions;
  std::optional<std::int64_t> kv_heads{};  // when the key is missing; none: as many as heads
  std::optional<std::int64_t> head_dim{};  // when missing; none: hidden_size / heads
  double rope_theta = 10000.0;
  bool tied = false;
  bool qk_norm = false;
  bool qkv_bias = false;  // always, whatever the keys say
  bool reads_attention_bias = false;
  bool reads_mlp_bias = false;
  bool reads_no_rope_layers = false;
  WindowRule window_rule = WindowRule::kNone;
  std::optional<std::int64_t> window{};  // when sliding_window is missing
};

constexpr std::array kFamilies = std::to_array<Family>({
    {.model_type = "llama",
     .max_positions = 2048,
     .reads_attention_bias = true,
     .reads_mlp_bias = true},
    {.model_type = "ministral",
     .max_positions = 131072,
     .kv_heads = 8,
     .window_rule = WindowRule::kAll,
     .window = 4096},
    {.model_type = "mistral",
     .max_positions = 131072,
     .kv_heads = 8,
     .window_rule = WindowRule::kAll,
     .window = 4096},
    {.model_type = "qwen2",
     .max_positions = 32768,
     .kv_heads = 32,
     .qkv_bias = true,
     .window_rule = WindowRule::kFromMaxWindowLayers,
     .window = 4096},
    {.model_type = "qwen3",
     .max_positions = 32768,
     .kv_heads = 32,
     .head_dim = 128,
     .qk_norm = true,
     .reads_attention_bias = true,
     .window_rule = WindowRule::kFromMaxWindowLayers,
     .window = 4096},
    {.model_type = "smollm3",
     .max_positions = 32768,
     .kv_heads = 4,
     .rope_theta = 2e6,
     .tied = true,
     .reads_attention_bias = true,
     .reads_mlp_bias = true,
     .reads_no_rope_layers = true,
     .window_rule = WindowRule::kWithoutRotation},
});

// Why some well-known model types are not supported, by a part of their name; the first wins.
struct Stranger {
  std::string_view part, reason;
};

constexpr std::array kStrangers = std::to_array<Stranger>({
    {"moe", "a mixture of experts"},
    {"mixtral", "a mixture of experts"},
    {"deepseek", "a mixture of experts"},
    {"gpt_oss", "a mixture of experts"},
    {"_vl", "a model that sees images"},
    {"mistral3", "a model that sees images"},
    {"mllama", "a model that sees images"},
    {"llama4", "a model that sees images"},
    {"qwen3_next", "it has linear attention layers"},
    {"qwen3_5", "it has linear attention layers"},
    {"gemma", "its norms, embeddings and activation differ"},
    {"phi", "its projections are fused"},
    {"olmo", "its norms stand elsewhere"},
    {"glm", "its projections are fused"},
});

// Bounds that no real model comes near: with them no count of parameters overflows.
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxHeads = 1024;
constexpr std::int64_t kMaxHeadDim = 1024;
constexpr std::int64_t kMaxWidth = 1 << 24;
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 40;

json read_object(const fs::path& file) {
  json document;
  try {
    const std::string text = read_file(file);
    if (nests_too_deep(text)) throw input_error(file.string() + ": nests too deep");
    document = json::parse(text);
  } catch (const json::exception& error) {
    throw input_error(file.string() + ": " + json_reason(error), "download the checkpoint again");
  } catch (const Error& error) {
    throw input_error(error.what(), "give a folder with a Hugging Face checkpoint");
  }
  if (!document.is_object()) throw input_error(file.string() + ": must be a JSON object");
  return document;
}

const Family& family_of(const ConfigKeys& config) {
  const auto type = config.text("model_type", "");
  if (type.empty()) config.fail("model_type", "is missing or empty");
  std::string known;
  for (const auto& family : kFamilies) {
    if (family.model_type == type) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  const auto stranger = std::ranges::find_if(
      kStrangers, [&](const Stranger& s) { return type.find(s.part) != std::string::npos; });
  const auto reason =
      stranger == kStrangers.end() ? std::string() : ": " + std::string(stranger->reason);
  config.fail("model_type", "'" + type + "' is not supported" + reason, "supported: " + known);
}

void refuse_unsupported(const ConfigKeys& config) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    if (config.find(key) != nullptr)
      config.fail(key, "quantised weights cannot be trained",
                  "use the checkpoint in bfloat16 or float32");
  }
  const auto activation = config.text("hidden_act", "silu");
  if (activation != "silu")
    config.fail("hidden_act", "'" + activation + "' is not supported, only silu");
}

void read_sizes(const ConfigKeys& config, const Family& family, ModelSpec& spec) {
  spec.hidden_size = config.size("hidden_size", kMaxWidth);
  spec.intermediate_size = config.size("intermediate_size", kMaxWidth);
  spec.layers = config.size("num_hidden_layers", kMaxLayers);
  spec.heads = config.size("num_attention_heads", kMaxHeads);
  spec.vocab_size = config.size("vocab_size", kMaxWidth);
  spec.max_position_embeddings =
      config.size("max_position_embeddings", kMaxPositions, family.max_positions);
  // A null is not a missing key here: it means as many as heads in every family.
  const bool named = config.names("num_key_value_heads");
  spec.kv_heads = config.size("num_key_value_heads", kMaxHeads,
                              named ? spec.heads : family.kv_heads.value_or(spec.heads));
  if (spec.heads % spec.kv_heads != 0) {
    config.fail("num_key_value_heads", std::to_string(spec.kv_heads) + " does not divide the " +
                                           std::to_string(spec.heads) + " attention heads");
  }
  if (!family.head_dim && config.find("head_dim") == nullptr &&
      spec.hidden_size % spec.heads != 0) {
    config.fail("hidden_size", "is not a multiple of num_attention_heads, and head_dim is missing");
  }
  spec.head_dim =
      config.size("head_dim", kMaxHeadDim, family.head_dim.value_or(spec.hidden_size / spec.heads));
  if (spec.head_dim % 2 != 0 || spec.head_dim > kMaxHeadDim) {
    config.fail("head_dim", "must be even and at most " + std::to_string(kMaxHeadDim) + ", is " +
                                std::to_string(spec.head_dim));
  }
}

constexpr const char* kFull = "full_attention";
constexpr const char* kSliding = "sliding_attention";

// By layer: whether queries and keys are rotated. In config.json 0 marks a layer without.
std::vector<bool> read_rotary(const ConfigKeys& config, std::int64_t layers) {
  std::vector<bool> rotary;
  const auto* flags = config.find("no_rope_layers");
  if (flags == nullptr) {
    const auto interval = config.size("no_rope_layer_interval", kMaxLayers, 4);
    for (std::int64_t i = 0; i < layers; ++i) rotary.push_back((i + 1) % interval != 0);
    return rotary;
  }
  if (!flags->is_array() || std::ssize(*flags) < layers ||
      !std::ranges::all_of(*flags, &json::is_number_integer)) {
    config.fail("no_rope_layers", "must be a list of 0 and 1, one for each layer");
  }
  for (std::int64_t i = 0; i < layers; ++i) {
    rotary.push_back((*flags)[static_cast<std::size_t>(i)] != 0);
  }
  return rotary;
}

// The window of the layers that have one; 0: the model has none.
std::int64_t read_window(const ConfigKeys& config, const Family& family) {
  const bool switched = family.window_rule == WindowRule::kFromMaxWindowLayers ||
                        family.window_rule == WindowRule::kWithoutRotation;
  if (family.window_rule == WindowRule::kNone) return 0;
  if (switched && !config.flag("use_sliding_window", false)) return 0;
  const bool named = config.names("sliding_window");  // a null means none, in every family
  return config.size("sliding_window", kMaxPositions, named ? 0 : family.window.value_or(0));
}

std::vector<std::string> class_layer_types(const ConfigKeys& config, const Family& family,
                                           const ModelSpec& spec) {
  std::vector<std::string> types(static_cast<std::size_t>(spec.layers), kSliding);
  if (family.window_rule == WindowRule::kFromMaxWindowLayers) {
    const auto full = config.size("max_window_layers", kMaxLayers, 28, 0);
    std::fill_n(types.begin(), std::min(full, spec.layers), kFull);
  }
  if (family.window_rule == WindowRule::kWithoutRotation) {
    for (std::int64_t i = 0; i < spec.layers; ++i) {
      if (spec.rotates(i)) types[static_cast<std::size_t>(i)] = kFull;
    }
  }
  return types;
}

std::vector<std::string> given_layer_types(const ConfigKeys& config, const json& given,
                                           const ModelSpec& spec) {
  if (!given.is_array() || std::ssize(given) != spec.layers) {
    config.fail("layer_types", "must be a list with one type for each layer");
  }
  for (const auto& type : given) {
    if (type == kFull || type == kSliding) continue;
    config.fail("layer_types", type.dump() + " is not supported",
                "supported: full_attention, sliding_attention");
  }
  return given.get<std::vector<std::string>>();
}

// Fills rotary and windows; returns the layer types that occur.
std::vector<std::string> read_layers(const ConfigKeys& config, const Family& family,
                                     ModelSpec& spec) {
  if (family.reads_no_rope_layers) spec.rotary = read_rotary(config, spec.layers);
  const auto window = read_window(config, family);
  std::vector<std::string> types(static_cast<std::size_t>(spec.layers), kFull);
  if (const auto* given = config.find("layer_types")) {
    types = given_layer_types(config, *given, spec);
  } else if (window > 0) {
    types = class_layer_types(config, family, spec);
  }
  for (const auto& type : types) {
    if (type == kSliding && window == 0) {
      config.fail("layer_types", "asks for sliding_attention, but no window is set",
                  "see use_sliding_window and sliding_window");
    }
    spec.windows.push_back(type == kSliding ? window : 0);
  }
  std::ranges::sort(types);
  types.erase(std::ranges::unique(types).begin(), types.end());
  return types;
}

std::vector<std::int32_t> read_eos_ids(const ConfigKeys& keys, std::int64_t vocab_size) {
  const auto* value = keys.find("eos_token_id");
  if (value == nullptr) return {};
  std::vector<std::int32_t> ids;
  for (const auto& id : value->is_array() ? *value : json::array({*value})) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size) {
      keys.fail("eos_token_id", "must be a token id below vocab_size, or a list of them");
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

std::vector<std::int32_t> eos_ids(const fs::path& dir, const ConfigKeys& config,
                                  std::int64_t vocab_size) {
  const auto file = dir / "generation_config.json";
  if (fs::exists(file)) {
    const auto document = read_object(file);
    auto ids = read_eos_ids(ConfigKeys(file.string() + ": ", document), vocab_size);
    if (!ids.empty()) return ids;
  }
  return read_eos_ids(config, vocab_size);
}

void add_linear(NamedShapes& shapes, const std::string& name, std::int64_t out, std::int64_t in,
                bool bias) {
  shapes.push_back({name + ".weight", {out, in}});
  if (bias) shapes.push_back({name + ".bias", {out}});
}

void add_layer(NamedShapes& shapes, const ModelSpec& spec, const std::string& layer) {
  const auto queries = spec.heads * spec.head_dim;
  const auto keys = spec.kv_heads * spec.head_dim;
  const auto attention = layer + "self_attn.";
  shapes.push_back({layer + "input_layernorm.weight", {spec.hidden_size}});
  add_linear(shapes, attention + "q_proj", queries, spec.hidden_size, spec.attention_bias);
  add_linear(shapes, attention + "k_proj", keys, spec.hidden_size, spec.attention_bias);
  add_linear(shapes, attention + "v_proj", keys, spec.hidden_size, spec.attention_bias);
  add_linear(shapes, attention + "o_proj", spec.hidden_size, queries, spec.output_bias);
  if (spec.qk_norm) {
    shapes.push_back({attention + "q_norm.weight", {spec.head_dim}});
    shapes.push_back({attention + "k_norm.weight", {spec.head_dim}});
  }
  shapes.push_back({layer + "post_attention_layernorm.weight", {spec.hidden_size}});
  add_linear(shapes, layer + "mlp.gate_proj", spec.intermediate_size, spec.hidden_size,
             spec.mlp_bias);
  add_linear(shapes, layer + "mlp.up_proj", spec.intermediate_size, spec.hidden_size,
             spec.mlp_bias);
  add_linear(shapes, layer + "mlp.down_proj", spec.hidden_size, spec.intermediate_size,
             spec.mlp_bias);
}

}  // namespace

ModelSpec read_model_spec(const fs::path& dir) {
  const auto file = dir / "config.json";
  const auto document = read_object(file);
  const ConfigKeys config(file.string() + ": ", document);
  const auto& family = family_of(config);
  refuse_unsupported(config);
  ModelSpec spec;
  spec.model_type = family.model_type;
  spec.qk_norm = family.qk_norm;
  read_sizes(config, family, spec);
  spec.rms_norm_eps = config.positive("rms_norm_eps", 1e-6);
  spec.initializer_range = config.positive("initializer_range", 0.02);
  spec.output_bias = family.reads_attention_bias && config.flag("attention_bias", false);
  spec.attention_bias = spec.output_bias || family.qkv_bias;
  spec.mlp_bias = family.reads_mlp_bias && config.flag("mlp_bias", false);
  spec.tied = config.flag("tie_word_embeddings", family.tied);
  const auto layer_types = read_layers(config, family, spec);
  spec.rope = read_rope(config, {family.rope_theta, spec.max_position_embeddings, layer_types});
  spec.eos_ids = eos_ids(dir, config, spec.vocab_size);
  return spec;
}

NamedShapes parameter_shapes(const ModelSpec& spec) {
  NamedShapes shapes{{"model.embed_tokens.weight", {spec.vocab_size, spec.hidden_size}}};
  for (std::int64_t i = 0; i < spec.layers; ++i) {
    add_layer(shapes, spec, "model.layers." + std::to_string(i) + ".");
  }
  shapes.push_back({"model.norm.weight", {spec.hidden_size}});
  if (!spec.tied) shapes.push_back({"lm_head.weight", {spec.vocab_size, spec.hidden_size}});
  return shapes;
}

std::int64_t parameter_count(const ModelSpec& spec) {
  std::int64_t count = 0;
  for (const auto& [name, shape] : parameter_shapes(spec)) {
    std::int64_t elements = 1;
    for (const auto size : shape) elements *= size;
    count += elements;
  }
  return count;
}

}  // namespace rollcall
