// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "model/config_keys.h"
#include "model/rope.h"

namespace rollcall {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxPositions = std::int64_t{1} << 40;

// The one set of keys of all layer types that occur.
ConfigKeys shared_by_layer_types(const ConfigKeys& nested, const RopeContext& context) {
  const std::string& first = context.layer_types.front();
  for (const auto& type : context.layer_types) {
    if (nested.find(type) == nullptr) nested.fail(type, "missing, though layers are of this type");
    if (*nested.find(type) != *nested.find(first)) {
      nested.fail(type, "differs from " + first,
                  "supported: the same rotary positions in all layers that have them");
    }
  }
  return *nested.object(first);
}

// transformers v4 writes rope_theta and rope_scaling, v5 rope_parameters; the older key wins where
// both are there.
std::optional<ConfigKeys> rope_keys(const ConfigKeys& config, const RopeContext& context) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto keys = config.object(key);
    if (!keys || keys->empty()) continue;
    const bool nested = std::ranges::any_of(*config.find(key), &json::is_object);
    return nested ? shared_by_layer_types(*keys, context) : *keys;
  }
  return std::nullopt;
}

RopeType rope_type(const ConfigKeys& rope) {
  const auto type = rope.text("rope_type", rope.text("type", "default"));
  if (type == "default") return RopeType::kDefault;
  if (type == "linear") return RopeType::kLinear;
  if (type == "llama3") return RopeType::kLlama3;
  if (type == "yarn") return RopeType::kYarn;
  rope.fail("rope_type", "'" + type + "' is not supported",
            "supported: default, linear, llama3, yarn");
}

// A key at the top level of config.json wins; without any, the context was not stretched.
std::int64_t original_positions(const ConfigKeys& config, const ConfigKeys& rope,
                                const RopeContext& context) {
  constexpr const char* kKey = "original_max_position_embeddings";
  return config.size(kKey, kMaxPositions, rope.size(kKey, kMaxPositions, context.max_positions));
}

void read_llama3(const ConfigKeys& config, const ConfigKeys& rope, const RopeContext& context,
                 RopeSpec& spec) {
  spec.original_positions = original_positions(config, rope, context);
  spec.factor = rope.positive("factor");
  spec.low_freq_factor = rope.positive("low_freq_factor");
  spec.high_freq_factor = rope.positive("high_freq_factor");
  if (spec.high_freq_factor <= spec.low_freq_factor) {
    rope.fail("high_freq_factor", "must be over low_freq_factor");
  }
}

// Of YaRN: how much sharper attention gets in a context stretched by `factor`.
double attention_scaling(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// A number that the reference takes for missing when it is 0.
double optional_number(const ConfigKeys& rope, const std::string& key) {
  const auto* value = rope.find(key);
  return value != nullptr && *value == 0 ? 0.0 : rope.positive(key, 0.0);
}

void read_yarn(const ConfigKeys& config, const ConfigKeys& rope, const RopeContext& context,
               RopeSpec& spec) {
  spec.original_positions = original_positions(config, rope, context);
  if (spec.theta <= 1) rope.fail("rope_theta", "must be over 1 for yarn");
  if (rope.names("factor") && rope.find("factor") == nullptr) {
    spec.factor =
        static_cast<double>(context.max_positions) / static_cast<double>(spec.original_positions);
  } else {
    spec.factor = rope.positive("factor");
  }
  const double fast = optional_number(rope, "beta_fast"), slow = optional_number(rope, "beta_slow");
  spec.beta_fast = fast > 0 ? fast : 32;
  spec.beta_slow = slow > 0 ? slow : 1;
  spec.truncate = rope.flag("truncate", !rope.names("truncate"));  // null is false
  const double mscale = optional_number(rope, "mscale"),
               all_dim = optional_number(rope, "mscale_all_dim");
  const double inferred = mscale > 0 && all_dim > 0 ? attention_scaling(spec.factor, mscale) /
                                                          attention_scaling(spec.factor, all_dim)
                                                    : attention_scaling(spec.factor, 1);
  spec.attention_factor = rope.positive("attention_factor", inferred);
}

void require_whole_rotation(const ConfigKeys& keys) {
  if (keys.positive("partial_rotary_factor", 1.0) != 1.0) {
    keys.fail("partial_rotary_factor", "only 1 is supported");
  }
}

}  // namespace

RopeSpec read_rope(const ConfigKeys& config, const RopeContext& context) {
  require_whole_rotation(config);
  RopeSpec spec;
  spec.theta = config.positive("rope_theta", context.missing_theta);
  const auto rope = rope_keys(config, context);
  if (!rope) return spec;
  require_whole_rotation(*rope);
  spec.theta = rope->positive("rope_theta", spec.theta);
  spec.type = rope_type(*rope);
  if (spec.type == RopeType::kLinear) spec.factor = rope->positive("factor");
  if (spec.type == RopeType::kLlama3) read_llama3(config, *rope, context, spec);
  if (spec.type == RopeType::kYarn) read_yarn(config, *rope, context, spec);
  return spec;
}

}  // namespace rollcall
