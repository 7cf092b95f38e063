// SPDX-License-Identifier: Apache-2.0
#include "model/model_spec.h"

#include <gmock/gmock.h>

#include <map>
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
  EXPECT_EQ(spec.rope.theta, 1e6);
  EXPECT_EQ(spec.rope.type, RopeType::kDefault);
  EXPECT_TRUE(spec.tied && spec.qk_norm);
  EXPECT_FALSE(spec.attention_bias || spec.output_bias || spec.mlp_bias);
  EXPECT_THAT(spec.eos_ids, testing::ElementsAre(352, 354));
}

TEST(ModelSpec, ReadsQwen3InV5Spelling) {
  const auto spec = golden("qwen3-untied-sharded");
  EXPECT_EQ(spec.rope.theta, 5000);
  EXPECT_EQ(spec.kv_heads, 1);
  EXPECT_EQ(spec.rms_norm_eps, 1e-5);
  EXPECT_FALSE(spec.tied);
}

TEST(ModelSpec, ReadsQwen2WithItsBiasOnQueriesKeysAndValues) {
  const auto spec = golden("qwen2-untied");
  EXPECT_TRUE(spec.attention_bias);
  EXPECT_FALSE(spec.output_bias || spec.mlp_bias || spec.qk_norm || spec.tied);
  EXPECT_THAT(spec.windows, testing::Each(0));
}

TEST(ModelSpec, ReadsLlama3ScalingInBothSpellings) {
  const auto v4 = golden("llama3-scaled-sharded");
  EXPECT_EQ(v4.rope.type, RopeType::kLlama3);
  EXPECT_EQ(v4.rope.theta, 500000);
  EXPECT_EQ(v4.rope.factor, 8);
  EXPECT_EQ(v4.rope.high_freq_factor, 4);
  EXPECT_EQ(v4.rope.original_positions, 32);
  EXPECT_FALSE(v4.qk_norm);
  const auto v5 = golden("llama-bias-v5");
  EXPECT_EQ(v5.rope.factor, 32);
  EXPECT_EQ(v5.rope.theta, 10000);
  EXPECT_EQ(v5.rope.original_positions, 64);
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

// What config.json leaves open: the class decides, model type by model type.
TEST(ModelSpec, TakesTheDefaultsOfTheClass) {
  struct Defaults {
    const char* model_type;
    std::int64_t kv_heads, head_dim, max_positions;
    double theta;
    bool tied, qk_norm, attention_bias;
  };
  for (const auto& want : {Defaults{"llama", 32, 2, 2048, 1e4, false, false, false},
                           Defaults{"ministral", 8, 2, 131072, 1e4, false, false, false},
                           Defaults{"mistral", 8, 2, 131072, 1e4, false, false, false},
                           Defaults{"qwen2", 32, 2, 32768, 1e4, false, false, true},
                           Defaults{"qwen3", 32, 128, 32768, 1e4, false, true, false},
                           Defaults{"smollm3", 4, 2, 32768, 2e6, true, false, false}}) {
    SCOPED_TRACE(want.model_type);
    const auto spec = read_with(want.model_type, {{"max_position_embeddings", nullptr}});
    EXPECT_EQ(spec.kv_heads, want.kv_heads);
    EXPECT_EQ(spec.head_dim, want.head_dim);
    EXPECT_EQ(spec.max_position_embeddings, want.max_positions);
    EXPECT_EQ(spec.rope.theta, want.theta);
    EXPECT_EQ(spec.tied, want.tied);
    EXPECT_EQ(spec.qk_norm, want.qk_norm);
    EXPECT_EQ(spec.attention_bias, want.attention_bias);
    EXPECT_FALSE(spec.output_bias || spec.mlp_bias);
    EXPECT_EQ(spec.rms_norm_eps, 1e-6);
    EXPECT_EQ(spec.initializer_range, 0.02);
    EXPECT_EQ(spec.rope.type, RopeType::kDefault);
    EXPECT_EQ(read_with(want.model_type, {{"num_key_value_heads", nullptr}}).kv_heads, 32);
  }
}

TEST(ModelSpec, ReadsOnlyTheBiasesThatTheClassKnows) {
  for (const char* type : {"llama", "smollm3", "qwen3", "qwen2", "mistral"}) {
    SCOPED_TRACE(type);
    const auto spec = read_with(type, {{"attention_bias", true}, {"mlp_bias", true}});
    const std::string name = type;
    const bool switched = name == "llama" || name == "smollm3" || name == "qwen3";
    EXPECT_EQ(spec.attention_bias, switched || name == "qwen2");
    EXPECT_EQ(spec.output_bias, switched);
    EXPECT_EQ(spec.mlp_bias, name == "llama" || name == "smollm3");
  }
}

std::vector<std::int64_t> windows(const std::string& model_type, json changes) {
  changes["num_hidden_layers"] = 4;
  const auto spec = read_with(model_type, changes);
  std::vector<std::int64_t> result;
  for (std::int64_t i = 0; i < spec.layers; ++i) result.push_back(spec.window(i));
  return result;
}

TEST(ModelSpec, GivesQwenLayersAWindowFromMaxWindowLayersOn) {
  using testing::ElementsAre;
  const json on = {{"use_sliding_window", true}, {"sliding_window", 9}, {"max_window_layers", 2}};
  for (const char* type : {"qwen2", "qwen3"}) {
    EXPECT_THAT(windows(type, on), ElementsAre(0, 0, 9, 9));
    const auto with = [&](json changes) {
      json keys = on;
      keys.update(changes);
      return windows(type, keys);
    };
    EXPECT_THAT(with({{"max_window_layers", 0}}), ElementsAre(9, 9, 9, 9));
    EXPECT_THAT(with({{"max_window_layers", nullptr}}), ElementsAre(0, 0, 0, 0));  // 28
    EXPECT_THAT(with({{"sliding_window", nullptr}}), ElementsAre(0, 0, 0, 0));
    EXPECT_THAT(with({{"use_sliding_window", false}}), ElementsAre(0, 0, 0, 0));
    EXPECT_THAT(windows(type, {{"use_sliding_window", true}, {"max_window_layers", 3}}),
                ElementsAre(0, 0, 0, 4096));
    EXPECT_THAT(
        with({{"layer_types",
               {"sliding_attention", "full_attention", "full_attention", "sliding_attention"}}}),
        ElementsAre(9, 0, 0, 9));
  }
  EXPECT_THAT(golden("qwen2-tied-window").windows, ElementsAre(0, 8, 8));
}

TEST(ModelSpec, GivesAllMistralLayersAWindowUnlessTheirTypesSayOtherwise) {
  using testing::ElementsAre;
  EXPECT_THAT(windows("mistral", {{"sliding_window", 6}}), ElementsAre(6, 6, 6, 6));
  EXPECT_THAT(windows("mistral", json::object()), ElementsAre(4096, 4096, 4096, 4096));
  EXPECT_THAT(windows("mistral", {{"sliding_window", nullptr}}), ElementsAre(0, 0, 0, 0));
  const json types = {"full_attention", "sliding_attention", "full_attention", "full_attention"};
  EXPECT_THAT(windows("mistral", {{"sliding_window", 6}, {"layer_types", types}}),
              ElementsAre(0, 6, 0, 0));
  EXPECT_THAT(windows("ministral", {{"sliding_window", 6}, {"layer_types", types}}),
              ElementsAre(0, 6, 0, 0));
}

TEST(ModelSpec, LeavesTheKeysOfNoWindowAlone) {
  EXPECT_THAT(windows("llama", {{"sliding_window", 6}, {"use_sliding_window", true}}),
              testing::Each(0));
  EXPECT_THAT(windows("smollm3", {{"sliding_window", 6}}), testing::Each(0));
}

TEST(ModelSpec, ReadsTheLayersWithoutPositionsOfSmolLM3) {
  using testing::ElementsAre;
  const auto with = [](json changes) {
    changes["num_hidden_layers"] = 5;
    return read_with("smollm3", changes);
  };
  EXPECT_THAT(with(json::object()).rotary, ElementsAre(true, true, true, false, true));
  EXPECT_THAT(with({{"no_rope_layer_interval", 2}}).rotary,
              ElementsAre(true, false, true, false, true));
  const auto spec = with({{"no_rope_layers", {1, 0, 1, 1, 0, 0}},  // longer is fine
                          {"use_sliding_window", true},
                          {"sliding_window", 5}});
  EXPECT_THAT(spec.rotary, ElementsAre(true, false, true, true, false));
  EXPECT_THAT(spec.windows, ElementsAre(0, 5, 0, 0, 5));
  EXPECT_FALSE(spec.rotates(1));
  EXPECT_TRUE(golden("smollm3-nope").tied);
  EXPECT_TRUE(read_with("llama", {{"no_rope_layers", {0, 0}}}).rotates(0));
}

TEST(ModelSpec, LetsRopeScalingWinOverRopeParameters) {
  const auto spec =
      read_with("llama", {{"rope_theta", 5e5},
                          {"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
                          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 7}}}});
  EXPECT_EQ(spec.rope.type, RopeType::kLinear);
  EXPECT_EQ(spec.rope.factor, 2);
  EXPECT_EQ(spec.rope.theta, 5e5);
}

TEST(ModelSpec, TakesRopeParametersNestedByLayerTypeWhereTheyAgree) {
  const json one = {{"rope_type", "linear"}, {"factor", 2}, {"rope_theta", 7}};
  json other = one;
  other["factor"] = 3;
  const auto refuse = [](const json& nested, const char* window) {
    return refusal("qwen3", {{"rope_parameters", nested},
                             {"use_sliding_window", window != nullptr},
                             {"max_window_layers", 1}});
  };
  const auto spec = read_with("qwen3", {{"rope_parameters", {{"full_attention", one}}}});
  EXPECT_EQ(spec.rope.factor, 2);
  EXPECT_EQ(spec.rope.theta, 7);
  EXPECT_EQ(refuse({{"full_attention", one}, {"sliding_attention", one}}, "both"), "accepted");
  EXPECT_EQ(refuse({{"full_attention", one}, {"sliding_attention", other}}, nullptr), "accepted");
  EXPECT_THAT(refuse({{"full_attention", one}, {"sliding_attention", other}}, "both"),
              testing::HasSubstr("rope_parameters.sliding_attention: differs"));
  EXPECT_THAT(refuse({{"full_attention", one}}, "both"),
              testing::HasSubstr("rope_parameters.sliding_attention: missing"));
}

TEST(ModelSpec, RefusesWhatItDoesNotSupportByName) {
  using testing::HasSubstr;
  EXPECT_THAT(refusal("bert", {}), HasSubstr("'bert' is not supported | supported: llama, "
                                             "ministral, mistral, qwen2, qwen3, smollm3"));
  EXPECT_THAT(refusal("qwen3_moe", {}), HasSubstr("a mixture of experts"));
  EXPECT_THAT(refusal("qwen3_next", {}), HasSubstr("linear attention"));
  EXPECT_THAT(refusal("gemma3_text", {}), HasSubstr("its norms"));
  EXPECT_THAT(refusal("phi3", {}), HasSubstr("fused"));
  EXPECT_THAT(refusal("qwen2_5_vl", {}), HasSubstr("images"));
  EXPECT_THAT(refusal("llama", {{"quantization_config", {{"bits", 4}}}}),
              HasSubstr("quantization_config"));
  EXPECT_THAT(refusal("llama", {{"hidden_act", "gelu"}}), HasSubstr("hidden_act: 'gelu'"));
  for (const char* type : {"dynamic", "longrope", "mrope"}) {
    EXPECT_THAT(refusal("llama", {{"rope_scaling", {{"type", type}}}}),
                HasSubstr(std::string("rope_scaling.rope_type: '") + type +
                          "' is not supported | supported: default, linear, llama3, yarn"));
  }
  EXPECT_THAT(refusal("llama", {{"partial_rotary_factor", 0.5}}),
              HasSubstr("partial_rotary_factor"));
  EXPECT_EQ(refusal("qwen3", {{"sliding_window", 4096}, {"use_sliding_window", false}}),
            "accepted");
}

TEST(ModelSpec, RefusesBadLayersNamingTheKey) {
  using testing::HasSubstr;
  const auto refuse_types = [](const json& types) {
    return refusal("qwen3", {{"layer_types", types}});
  };
  EXPECT_THAT(refuse_types({"full_attention", "linear_attention"}),
              HasSubstr("layer_types: \"linear_attention\" is not supported | supported: full"));
  EXPECT_THAT(refuse_types({"full_attention", "sliding_attention"}),
              HasSubstr("layer_types: asks for sliding_attention, but no window is set"));
  EXPECT_THAT(refuse_types({"full_attention"}), HasSubstr("one type for each layer"));
  EXPECT_THAT(refuse_types(7), HasSubstr("one type for each layer"));
  for (const json& value : {json(0), json(-1), json(1.5), json("all")}) {
    EXPECT_THAT(refusal("mistral", {{"sliding_window", value}}), HasSubstr("sliding_window"));
  }
  EXPECT_THAT(refusal("qwen2", {{"use_sliding_window", true}, {"max_window_layers", -1}}),
              HasSubstr("max_window_layers"));
  for (const json& value : {json({1}), json({1, "x"}), json(3), json({1, 0.5})}) {
    EXPECT_THAT(refusal("smollm3", {{"no_rope_layers", value}}), HasSubstr("no_rope_layers"));
  }
  EXPECT_THAT(refusal("smollm3", {{"no_rope_layer_interval", 0}}),
              HasSubstr("no_rope_layer_interval"));
}

TEST(ModelSpec, RefusesBadYarnNamingTheKey) {
  const auto refuse = [](const std::string& key, const json& value) {
    json yarn = {{"rope_type", "yarn"}, {"factor", 4}, {"original_max_position_embeddings", 32}};
    yarn[key] = value;
    return refusal("llama", {{"rope_scaling", yarn}});
  };
  EXPECT_EQ(refuse("factor", nullptr), "accepted");
  for (const auto& [key, value] :
       std::map<std::string, json>{{"factor", 0},
                                   {"attention_factor", -1},
                                   {"mscale", -1},
                                   {"beta_fast", "32"},
                                   {"truncate", "true"},
                                   {"rope_theta", 1},
                                   {"original_max_position_embeddings", 0}})
    EXPECT_THAT(refuse(key, value), testing::HasSubstr("rope_scaling." + key));
  EXPECT_THAT(refusal("llama", {{"rope_scaling", {{"type", "yarn"}}}}),
              testing::HasSubstr("rope_scaling.factor: missing"));
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
