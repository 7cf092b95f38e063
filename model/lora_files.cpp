// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/json_depth.h"
#include "model/lora.h"
#include "model/safetensors.h"
#include "model/stored_weights.h"

// The layout of peft 0.21 (adapter_config.json, adapter_model.safetensors).

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kTensors = "adapter_model.safetensors";
constexpr std::int64_t kMaxRank = 65536;

// Keys that say nothing about what the adapter computes. Dropout acts in training alone, and not in
// ours.
constexpr auto kWithoutEffect = std::to_array<std::string_view>(
    {"auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "megatron_core",
     "peft_version", "qalora_group_size", "revision"});
constexpr auto kRead =
    std::to_array<std::string_view>({"peft_type", "task_type", "r", "lora_alpha", "use_rslora",
                                     "target_modules", "init_lora_weights"});

[[noreturn]] void refuse(const fs::path& file, const std::string& problem) {
  throw input_error(
      file.string() + ": " + problem,
      "this version reads plain LoRA on linear layers: merge the adapter into its base with PEFT "
      "(merge_and_unload) and set model.path to the result");
}

[[noreturn]] void damaged(const fs::path& file, const std::string& problem) {
  throw input_error(file.string() + ": " + problem,
                    "the adapter is damaged, or of another model than model.path");
}

// A value that asks for nothing.
bool is_neutral(const json& value) {
  return value.is_null() || value == false || value == "none" || value == "" ||
         (value.is_structured() && value.empty());
}

template <typename Names>
bool contains(const Names& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

void refuse_other_kinds(const fs::path& file, const json& config) {
  const auto expect = [&](const char* key, const json& expected) {
    const json value = config.value(key, json());
    if (value != expected)
      refuse(file, std::string(key) + " is " + value.dump() + ", not " + expected.dump());
  };
  expect("peft_type", "LORA");
  if (!is_neutral(config.value("task_type", json()))) expect("task_type", "CAUSAL_LM");
  const json init = config.value("init_lora_weights", json(true));
  if (!init.is_boolean() && init != "gaussian" && init != "orthogonal")
    refuse(file, "init_lora_weights is " + init.dump() + ", which may change the base's weights");
  for (const auto& [key, value] : config.items()) {
    if (contains(kRead, key) || contains(kWithoutEffect, key) || is_neutral(value)) continue;
    refuse(file, key + " is " + value.dump());
  }
}

LoraOptions read_options(const fs::path& file, const json& config) {
  const json rank = config.value("r", json()), alpha = config.value("lora_alpha", json());
  if (!rank.is_number_integer() || rank < 1 || rank > kMaxRank)
    damaged(file, "r must be a whole number from 1 to " + std::to_string(kMaxRank));
  if (!alpha.is_number() || !(alpha > 0)) damaged(file, "lora_alpha must be a number over 0");
  const json rslora = config.value("use_rslora", json(false));
  if (!rslora.is_boolean()) damaged(file, "use_rslora must be true or false");
  const json targets = config.value("target_modules", json());
  const auto is_text = [](const json& name) { return name.is_string() && name != ""; };
  if (!targets.is_array() || !std::ranges::all_of(targets, is_text))
    refuse(file, "target_modules is no list of module names");
  return {rank, alpha, targets, rslora};
}

json read_config(const fs::path& file) try {
  const std::string text = read_file(file);
  if (nests_too_deep(text)) damaged(file, "nests too deep");
  const json config = json::parse(text);
  if (!config.is_object()) damaged(file, "is no JSON object");
  return config;
} catch (const json::exception& error) {
  damaged(file, json_reason(error));
}

void read_parameters(const fs::path& file, LoraAdapter& adapter) {
  const SafetensorsFile contents(file);
  std::set<std::string> missing;
  for (const auto& [key, tensor] : adapter.parameters.tensors) missing.insert(key);
  for (const auto& entry : contents.entries()) {
    const auto target = adapter.parameters.tensors.find(entry.name);
    if (target == adapter.parameters.tensors.end())
      refuse(file, "tensor '" + entry.name + "' belongs to none of target_modules");
    target->second.copy_(
        checked_tensor(file, entry, target->second.sizes().vec(), kConfig, at::kFloat));
    missing.erase(entry.name);
  }
  if (!missing.empty())
    damaged(file, "tensor '" + *missing.begin() + "' is missing (" +
                      std::to_string(missing.size()) + " in all)");
}

ordered_json config_of(const LoraAdapter& adapter, const std::string& base_model) {
  const LoraOptions& options = adapter.options;
  ordered_json alpha = options.alpha;
  if (options.alpha == std::floor(options.alpha) && options.alpha < 1e15)
    alpha = static_cast<std::int64_t>(options.alpha);  // as PEFT's type says
  return {{"base_model_name_or_path", base_model},
          {"bias", "none"},
          {"fan_in_fan_out", false},
          {"inference_mode", true},
          {"init_lora_weights", true},
          {"lora_alpha", alpha},
          {"lora_dropout", 0.0},
          {"modules_to_save", nullptr},
          {"peft_type", "LORA"},
          {"r", options.rank},
          {"target_modules", options.targets},
          {"task_type", "CAUSAL_LM"},
          {"use_dora", false},
          {"use_rslora", options.rslora}};
}

}  // namespace

LoraAdapter read_lora_adapter(const fs::path& dir, const ModelSpec& spec) {
  const fs::path config_file = dir / kConfig, tensor_file = dir / kTensors;
  for (const auto& file : {config_file, tensor_file})
    if (!fs::is_regular_file(file))
      throw input_error(file.string() + " is missing",
                        "an adapter is a folder with " + std::string(kConfig) + " and " + kTensors);
  const json config = read_config(config_file);
  refuse_other_kinds(config_file, config);
  const LoraOptions options = read_options(config_file, config);
  LoraAdapter adapter;
  try {
    adapter = make_lora_adapter(spec, options);
  } catch (const Error& error) {
    throw input_error(config_file.string() + ": " + error.what(), error.what_to_do());
  }
  read_parameters(tensor_file, adapter);
  return adapter;
}

void save_lora_adapter(const fs::path& dir, const LoraAdapter& adapter,
                       const std::string& base_model) {
  const fs::path file = dir / kTensors;
  std::vector<SafetensorsEntry> entries;
  for (const auto& [key, tensor] : adapter.parameters.tensors) {
    if (const auto bad = first_not_finite(tensor, at::kFloat))
      throw Error(file.string() + ": tensor '" + key + "' holds " + bad->text(),
                  "the training diverged: go back to an earlier checkpoint");
    const auto* bytes = static_cast<const std::byte*>(tensor.const_data_ptr());
    entries.push_back(
        {key, "F32", tensor.sizes().vec(), {bytes, static_cast<std::size_t>(tensor.nbytes())}});
  }
  write_safetensors(file, std::move(entries), {{"format", "pt"}});
  try {
    write_durably(dir / kConfig, config_of(adapter, base_model).dump(2) + "\n");
  } catch (const json::exception& error) {
    throw Error(dir.string() + ": the base model's path is not UTF-8: " + json_reason(error));
  }
}

}  // namespace rollcall
