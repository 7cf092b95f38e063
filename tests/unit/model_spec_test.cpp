// SPDX-License-Identifier: Apache-2.0
#include "model/model_spec.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "temp_folder.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

ModelSpec golden(const std::string& name) {
  return read_model_spec(fs::path(ROLLCALL_GOLDEN_DIR) / "models" / name);
}

json base_config(const std::string& model_type) {
  return {{"model_type", model_type},      {"hidden_size", 64},         {"intermediate_size", 96},
          {"num_hidden_layers", 2},        {"num_attention_heads", 32}, {"vocab_size", 100},
          {"max_position_embeddings", 512}};
}

ModelSpec read(const json& config) {
  const TempFolder dir;
  spit(dir / "config.json", config.dump());
  return read_model_spec(dir.path());
}

ModelSpec read_with(const std::string& model_type, const json& changes) {
  auto config = base_config(model_type);
  if (!changes.is_null()) config.update(changes);
  return read(config);
}

// Message and advice of the refusal.
std::string refusal(const std::string& model_type, const json& changes) {
  try {
    read_with(model_type, changes);
    return "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
    return error.what() + std::string(" | ") + error.what_to_do();
  }
}

TEST(ModelSpec, ReadsQwen3InV4Spelling) {
  const auto spec = golden("qwen3-tied");
  EXPECT_EQ(spec.model_type, "qwen3");
  EXPECT_EQ(spec.hidden_size, 64);
  EXPECT_EQ(spec.intermediate_size, 96);
  EXPECT_EQ(spec.layers, 2);
  EXPECT_EQ(spec.heads, 4);
  EXPECT_EQ(spec.kv_heads, 2);
  EXPECT_EQ(spec.head_dim, 24);
  EXPECT_EQ(spec.vocab_size, 384);
  EXPECT_EQ(spec.max_position_embeddings, 512);
  EXPECT_EQ(spec.rms_norm_eps, 1e-6);
  EXPECT_EQ(spec.rope_theta, 1e6);
  EXPECT_EQ(spec.rope_type, RopeType::kDefault);
  EXPECT_TRUE(spec.tied && spec.qk_norm);
  EXPECT_FALSE(spec.attention_bias || spec.output_bias || spec.mlp_bias);
  EXPECT_THAT(spec.eos_ids, testing::ElementsAre(352, 354));
}

TEST(ModelSpec, ReadsQwen3InV5Spelling) {
  const auto spec = golden("qwen3-untied-sharded");
  EXPECT_EQ(spec.rope_theta, 5000);
  EXPECT_EQ(spec.kv_heads, 1);
  EXPECT_EQ(spec.rms_norm_eps, 1e-5);
  EXPECT_FALSE(spec.tied);
}

TEST(ModelSpec, ReadsQwen2WithItsBiasOnQueriesKeysAndValues) {
  const auto spec = golden("qwen2-untied");
  EXPECT_TRUE(spec.attention_bias);
  EXPECT_FALSE(spec.output_bias || spec.mlp_bias || spec.qk_norm || spec.tied);
  EXPECT_EQ(read_with("qwen2", {}).kv_heads, 32);
  EXPECT_EQ(read_with("qwen2", {}).head_dim, 2);
  EXPECT_FALSE(read_with("qwen2", {{"attention_bias", true}}).output_bias);
}

TEST(ModelSpec, ReadsLlama3ScalingInBothSpellings) {
  const auto v4 = golden("llama3-scaled-sharded");
  EXPECT_EQ(v4.rope_type, RopeType::kLlama3);
  EXPECT_EQ(v4.rope_theta, 500000);
  EXPECT_EQ(v4.rope_factor, 8);
  EXPECT_EQ(v4.rope_high_freq_factor, 4);
  EXPECT_EQ(v4.rope_original_positions, 32);
  EXPECT_FALSE(v4.qk_norm);
  const auto v5 = golden("llama-bias-v5");
  EXPECT_EQ(v5.rope_factor, 32);
  EXPECT_EQ(v5.rope_theta, 10000);
  EXPECT_EQ(v5.rope_original_positions, 64);
  EXPECT_EQ(v5.kv_heads, 4);   // null
  EXPECT_EQ(v5.head_dim, 16);  // null
  EXPECT_TRUE(v5.attention_bias && v5.output_bias && v5.mlp_bias);
}

TEST(ModelSpec, LetsGenerationConfigOverrideTheEndTokens) {
  EXPECT_THAT(golden("llama-tied-bf16").eos_ids, testing::ElementsAre(0, 2));  // config.json: 2
  EXPECT_THAT(read_with("llama", {{"eos_token_id", 7}}).eos_ids, testing::ElementsAre(7));
  EXPECT_THAT(read_with("llama", {{"eos_token_id", {7, 9}}}).eos_ids, testing::ElementsAre(7, 9));
  EXPECT_TRUE(read_with("llama", {}).eos_ids.empty());
  EXPECT_THAT(refusal("llama", {{"eos_token_id", 100}}), testing::HasSubstr("eos_token_id"));
}

TEST(ModelSpec, TakesTheDefaultsOfTheClass) {
  const auto qwen3 = read_with("qwen3", {});
  EXPECT_EQ(qwen3.kv_heads, 32);
  EXPECT_EQ(qwen3.head_dim, 128);
  EXPECT_FALSE(qwen3.tied);
  EXPECT_EQ(qwen3.rope_theta, 10000);
  EXPECT_EQ(qwen3.rms_norm_eps, 1e-6);
  const auto llama = read_with("llama", {{"num_attention_heads", 8}});
  EXPECT_EQ(llama.kv_heads, 8);
  EXPECT_EQ(llama.head_dim, 8);
  EXPECT_EQ(
      read_with("qwen3", {{"num_attention_heads", 16}, {"num_key_value_heads", nullptr}}).kv_heads,
      16);
  // Of the keys that a class does not know, nothing is read.
  EXPECT_FALSE(read_with("qwen3", {{"mlp_bias", true}}).mlp_bias);
}

TEST(ModelSpec, LetsRopeScalingWinOverRopeParameters) {
  const auto spec =
      read_with("llama", {{"rope_theta", 5e5},
                          {"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 7}}}});
  EXPECT_EQ(spec.rope_type, RopeType::kLinear);
  EXPECT_EQ(spec.rope_factor, 2);
  EXPECT_EQ(spec.rope_theta, 5e5);
}

TEST(ModelSpec, RefusesWhatItDoesNotSupportByName) {
  using testing::HasSubstr;
  EXPECT_THAT(refusal("bert", {}),
              HasSubstr("'bert' is not supported | supported: llama, qwen2, qwen3"));
  EXPECT_THAT(refusal("llama", {{"quantization_config", {{"bits", 4}}}}),
              HasSubstr("quantization_config"));
  EXPECT_THAT(refusal("llama", {{"hidden_act", "gelu"}}), HasSubstr("hidden_act: 'gelu'"));
  EXPECT_THAT(refusal("llama", {{"rope_scaling", {{"type", "yarn"}}}}), HasSubstr("'yarn'"));
  EXPECT_THAT(refusal("llama", {{"rope_parameters", {{"full_attention", json::object()}}}}),
              HasSubstr("layer type"));
  EXPECT_THAT(refusal("qwen3", {{"use_sliding_window", true}}), HasSubstr("use_sliding_window"));
  EXPECT_THAT(refusal("qwen3", {{"layer_types", {"full_attention", "sliding_attention"}}}),
              HasSubstr("layer_types"));
  EXPECT_THAT(refusal("llama", {{"partial_rotary_factor", 0.5}}),
              HasSubstr("partial_rotary_factor"));
  EXPECT_EQ(refusal("qwen3", {{"sliding_window", 4096}, {"use_sliding_window", false}}),
            "accepted");
}

TEST(ModelSpec, RefusesBadSizesNamingTheKey) {
  using testing::HasSubstr;
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "vocab_size", "num_key_value_heads", "head_dim"}) {
    for (const json& value : {json(0), json(-4), json("64"), json(1.5), json(1e300), json(true),
                              json(std::uint64_t{1} << 63), json(std::int64_t{1} << 40)}) {
      EXPECT_THAT(refusal("qwen3", {{key, value}}), HasSubstr(std::string("config.json: ") + key));
    }
  }
  for (const char* key : {"hidden_size", "vocab_size"}) {
    EXPECT_THAT(refusal("qwen3", {{key, nullptr}}), HasSubstr("missing"));
  }
  EXPECT_THAT(refusal("qwen3", {{"num_key_value_heads", 5}}), HasSubstr("does not divide"));
  EXPECT_THAT(refusal("qwen3", {{"head_dim", 7}}), HasSubstr("head_dim: must be even"));
  EXPECT_THAT(refusal("llama", {{"hidden_size", 100}}), HasSubstr("multiple"));
  EXPECT_THAT(refusal("llama", {{"rms_norm_eps", -1}}), HasSubstr("rms_norm_eps"));
  EXPECT_THAT(refusal("llama", {{"rope_scaling", {{"type", "linear"}}}}),
              HasSubstr("rope_scaling.factor: missing"));
  EXPECT_THAT(refusal("llama", {{"rope_scaling",
                                 {{"rope_type", "llama3"},
                                  {"factor", 8},
                                  {"low_freq_factor", 4},
                                  {"high_freq_factor", 4}}}}),
              HasSubstr("high_freq_factor"));
}

TEST(ModelSpec, RefusesAConfigCutShortAtAnyByte) {
  const TempFolder dir;
  const auto text = base_config("llama").dump();
  for (std::size_t length = 0; length < text.size(); ++length) {
    spit(dir / "config.json", text.substr(0, length));
    EXPECT_THROW(read_model_spec(dir.path()), Error) << length;
  }
  fs::remove(dir / "config.json");
  EXPECT_THROW(read_model_spec(dir.path()), Error);
}

TEST(ModelSpec, ListsParametersInAFixedOrder) {
  const auto shapes = parameter_shapes(golden("qwen3-tied"));
  ASSERT_EQ(shapes.size(), 2u + 2 * 11);
  EXPECT_EQ(shapes.front().first, "model.embed_tokens.weight");
  EXPECT_EQ(shapes[1].first, "model.layers.0.input_layernorm.weight");
  EXPECT_EQ(shapes[2], (std::pair<std::string, std::vector<std::int64_t>>{
                           "model.layers.0.self_attn.q_proj.weight", {96, 64}}));
  EXPECT_EQ(shapes.back().first, "model.norm.weight");
  EXPECT_EQ(parameter_shapes(golden("llama-bias-v5")).back().first, "lm_head.weight");
}

// The counts of the reference checkpoints with these configurations.
TEST(ModelSpec, CountsParameters) {
  // embedding 384*64, two layers of 2*(96*64) + 2*(48*64) + 2*24 + 3*(96*64) + 2*64, norm 64
  EXPECT_EQ(parameter_count(golden("qwen3-tied")), 98720);
  EXPECT_EQ(parameter_count(golden("llama-tied-bf16")), 107264);
}

}  // namespace
}  // namespace rollcall
