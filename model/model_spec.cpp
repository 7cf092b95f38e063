// SPDX-License-Identifier: Apache-2.0
#include "model/model_spec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "comms/durable_file.h"
#include "comms/error.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What a model_type means where config.json is silent, and which of its keys the class reads.
struct Family {
  std::string_view model_type;
  std::optional<std::int64_t> kv_heads;  // when the key is missing; none: as many as heads
  std::optional<std::int64_t> head_dim;  // when missing; none: hidden_size / heads
  std::int64_t max_positions;
  bool tied;
  bool qk_norm;
  bool qkv_bias;  // always, whatever the keys say
  bool reads_attention_bias;
  bool reads_mlp_bias;
  bool reads_sliding_window;  // active if use_sliding_window says so
};

constexpr std::array kFamilies = std::to_array<Family>({
    {.model_type = "llama",
     .kv_heads = std::nullopt,
     .head_dim = std::nullopt,
     .max_positions = 2048,
     .tied = false,
     .qk_norm = false,
     .qkv_bias = false,
     .reads_attention_bias = true,
     .reads_mlp_bias = true,
     .reads_sliding_window = false},
    {.model_type = "qwen2",
     .kv_heads = 32,
     .head_dim = std::nullopt,
     .max_positions = 32768,
     .tied = false,
     .qk_norm = false,
     .qkv_bias = true,
     .reads_attention_bias = false,
     .reads_mlp_bias = false,
     .reads_sliding_window = true},
    {.model_type = "qwen3",
     .kv_heads = 32,
     .head_dim = 128,
     .max_positions = 32768,
     .tied = false,
     .qk_norm = true,
     .qkv_bias = false,
     .reads_attention_bias = true,
     .reads_mlp_bias = false,
     .reads_sliding_window = true},
});

// Bounds that no real model comes near: with them no count of parameters overflows.
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxHeads = 1024;
constexpr std::int64_t kMaxHeadDim = 1024;
constexpr std::int64_t kMaxWidth = 1 << 24;
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 40;

// One object of a JSON file, read key by key. A null value counts as a missing key, as for the
// library that writes these files.
class Keys {
 public:
  Keys(std::string where, json object) : where_(std::move(where)), object_(std::move(object)) {}

  [[noreturn]] void fail(const std::string& key, const std::string& problem,
                         const std::string& advice = {}) const {
    throw input_error(where_ + key + ": " + problem, advice);
  }

  bool names(const std::string& key) const { return object_.contains(key); }

  const json* find(const std::string& key) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? nullptr : &*at;
  }

  std::int64_t size(const std::string& key, std::int64_t largest,
                    std::optional<std::int64_t> missing = {}) const {
    const auto* value = find(key);
    if (value == nullptr && missing) return *missing;
    if (value == nullptr) fail(key, "missing");
    if (!value->is_number_integer() || *value < 1 || *value > largest) {
      fail(key, "must be a whole number from 1 to " + std::to_string(largest) + ", is " +
                    (value->is_number() ? value->dump() : value->type_name()));
    }
    return value->get<std::int64_t>();
  }

  double positive(const std::string& key, std::optional<double> missing = {}) const {
    const auto* value = find(key);
    if (value == nullptr && missing) return *missing;
    if (value == nullptr) fail(key, "missing");
    const double number = value->is_number() ? value->get<double>() : 0;
    if (!(number > 0) || !std::isfinite(number)) fail(key, "must be a number over 0");
    return number;
  }

  bool flag(const std::string& key, bool missing) const {
    const auto* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_boolean()) fail(key, "must be true or false");
    return value->get<bool>();
  }

  std::string text(const std::string& key, const std::string& missing) const {
    const auto* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_string()) fail(key, "must be a text");
    return value->get<std::string>();
  }

  std::optional<Keys> object(const std::string& key) const {
    const auto* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_object()) fail(key, "must be an object");
    return Keys(where_ + key + ".", *value);
  }

  bool empty() const { return object_.empty(); }
  bool holds_objects() const {
    return std::ranges::any_of(object_, [](const json& value) { return value.is_object(); });
  }

 private:
  std::string where_;  // file and path of the object, ready to be followed by a key
  json object_;
};

json read_object(const fs::path& file) {
  json document;
  try {
    document = json::parse(read_file(file));
  } catch (const json::exception& error) {
    throw input_error(file.string() + ": " + error.what(), "download the checkpoint again");
  } catch (const Error& error) {
    throw input_error(error.what(), "give a folder with a Hugging Face checkpoint");
  }
  if (!document.is_object()) throw input_error(file.string() + ": must be a JSON object");
  return document;
}

const Family& family_of(const Keys& config) {
  const auto type = config.text("model_type", "");
  std::string known;
  for (const auto& family : kFamilies) {
    if (family.model_type == type) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
  }
  config.fail("model_type", "'" + type + "' is not supported", "supported: " + known);
}

void refuse_unsupported(const Keys& config, const Family& family) {
  if (config.find("quantization_config") != nullptr) {
    config.fail("quantization_config", "quantised weights cannot be trained",
                "use the checkpoint in bfloat16 or float32");
  }
  const auto activation = config.text("hidden_act", "silu");
  if (activation != "silu")
    config.fail("hidden_act", "'" + activation + "' is not supported, only silu");
  if (config.positive("partial_rotary_factor", 1.0) != 1.0) {
    config.fail("partial_rotary_factor", "only 1 is supported");
  }
  if (family.reads_sliding_window && config.flag("use_sliding_window", false)) {
    config.fail("use_sliding_window", "sliding windows are not supported");
  }
  const auto* layer_types = config.find("layer_types");
  if (layer_types != nullptr &&
      (!layer_types->is_array() ||
       std::ranges::any_of(*layer_types, [](const json& t) { return t != "full_attention"; }))) {
    config.fail("layer_types", "only full_attention is supported");
  }
}

void read_sizes(const Keys& config, const Family& family, ModelSpec& spec) {
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

// transformers v4 writes rope_theta and rope_scaling, v5 rope_parameters; the older key wins where
// both are there.
Keys rope_keys(const Keys& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto keys = config.object(key);
    if (!keys || keys->empty()) continue;
    if (keys->holds_objects()) config.fail(key, "positions by layer type are not supported");
    return *keys;
  }
  return Keys("", json::object());
}

void read_llama3_scaling(const Keys& config, const Keys& rope, ModelSpec& spec) {
  constexpr const char* kOriginal = "original_max_position_embeddings";
  spec.rope_low_freq_factor = rope.positive("low_freq_factor");
  spec.rope_high_freq_factor = rope.positive("high_freq_factor");
  if (spec.rope_high_freq_factor <= spec.rope_low_freq_factor) {
    rope.fail("high_freq_factor", "must be over low_freq_factor");
  }
  const auto in_rope = rope.size(kOriginal, kMaxPositions, spec.max_position_embeddings);
  spec.rope_original_positions = config.size(kOriginal, kMaxPositions, in_rope);
}

void read_rope(const Keys& config, ModelSpec& spec) {
  const auto rope = rope_keys(config);
  spec.rope_theta = rope.positive("rope_theta", config.positive("rope_theta", 10000.0));
  if (rope.positive("partial_rotary_factor", 1.0) != 1.0) {
    rope.fail("partial_rotary_factor", "only 1 is supported");
  }
  const auto type = rope.text("rope_type", rope.text("type", "default"));
  if (type == "default") return;
  if (type != "linear" && type != "llama3") {
    rope.fail("rope_type", "'" + type + "' is not supported", "supported: default, linear, llama3");
  }
  spec.rope_factor = rope.positive("factor");
  spec.rope_type = type == "linear" ? RopeType::kLinear : RopeType::kLlama3;
  if (spec.rope_type == RopeType::kLlama3) read_llama3_scaling(config, rope, spec);
}

std::vector<std::int32_t> read_eos_ids(const Keys& keys, std::int64_t vocab_size) {
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

std::vector<std::int32_t> eos_ids(const fs::path& dir, const Keys& config,
                                  std::int64_t vocab_size) {
  const auto file = dir / "generation_config.json";
  if (fs::exists(file)) {
    const auto document = read_object(file);
    auto ids = read_eos_ids(Keys(file.string() + ": ", document), vocab_size);
    if (!ids.empty()) return ids;
  }
  return read_eos_ids(config, vocab_size);
}

using Shapes = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;

void add_linear(Shapes& shapes, const std::string& name, std::int64_t out, std::int64_t in,
                bool bias) {
  shapes.push_back({name + ".weight", {out, in}});
  if (bias) shapes.push_back({name + ".bias", {out}});
}

void add_layer(Shapes& shapes, const ModelSpec& spec, const std::string& layer) {
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
  const Keys config(file.string() + ": ", document);
  const auto& family = family_of(config);
  refuse_unsupported(config, family);
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
  read_rope(config, spec);
  spec.eos_ids = eos_ids(dir, config, spec.vocab_size);
  return spec;
}

Shapes parameter_shapes(const ModelSpec& spec) {
  Shapes shapes{{"model.embed_tokens.weight", {spec.vocab_size, spec.hidden_size}}};
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
