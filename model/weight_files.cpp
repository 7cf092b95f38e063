// SPDX-License-Identifier: Apache-2.0
#include "model/weight_files.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "comms/durable_file.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using WeightMap = std::map<std::string, std::string>;  // tensor -> shard

[[noreturn]] void bad_index(const fs::path& index, const char* kind, const std::string& problem) {
  throw SafetensorsError(kind, index.string() + ": " + problem);
}

// Refuses a key that is there twice, which a document tree would hide.
nlohmann::json parse_strictly(const std::string& text) {
  std::vector<std::set<std::string>> open_objects;
  return nlohmann::json::parse(
      text, [&](int, nlohmann::json::parse_event_t event, const nlohmann::json& parsed) {
        using Event = nlohmann::json::parse_event_t;
        if (event == Event::object_start) open_objects.emplace_back();
        if (event == Event::object_end) open_objects.pop_back();
        if (event == Event::key && !open_objects.back().insert(parsed.get<std::string>()).second) {
          throw SafetensorsError("index_json",
                                 "key '" + parsed.get<std::string>() + "' is there twice");
        }
        return true;
      });
}

nlohmann::json read_index(const fs::path& index) {
  try {
    return parse_strictly(read_file(index));
  } catch (const SafetensorsError& error) {
    bad_index(index, "index_json", error.what());
  } catch (const nlohmann::json::exception& error) {
    bad_index(index, "index_json", json_reason(error));
  } catch (const Error& error) {
    throw SafetensorsError("missing_file", error.what());
  }
}

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

WeightMap read_weight_map(const fs::path& index) {
  const auto document = read_index(index);
  const auto found = document.is_object() ? document.find("weight_map") : document.end();
  if (found == document.end() || !found->is_object() || found->empty()) {
    bad_index(index, "index_json", "'weight_map' must be an object with at least one tensor");
  }
  WeightMap weight_map;
  for (const auto& [tensor, shard] : found->items()) {
    if (!shard.is_string()) {
      bad_index(index, "index_json", "'weight_map' entry '" + tensor + "' is no file name");
    }
    const auto name = shard.get<std::string>();
    if (!is_plain_file_name(name)) {
      bad_index(index, "bad_shard_name", "shard '" + name + "' must be a file name without a path");
    }
    weight_map.emplace(tensor, name);
  }
  return weight_map;
}

std::map<std::string, WeightFile> open_shards(const fs::path& index, const WeightMap& weight_map) {
  std::map<std::string, WeightFile> shards;
  for (const auto& [tensor, shard] : weight_map) {
    if (shards.contains(shard)) continue;
    const auto path = index.parent_path() / shard;
    if (!fs::is_regular_file(path)) {
      bad_index(index, "missing_file",
                "shard '" + shard + "' of tensor '" + tensor + "' is missing");
    }
    shards.emplace(shard, WeightFile{path, SafetensorsFile(path)});
  }
  return shards;
}

void check_shards(const fs::path& index, const WeightMap& weight_map,
                  const std::map<std::string, WeightFile>& shards) {
  WeightMap found;
  for (const auto& [shard, file] : shards) {
    for (const auto& entry : file.contents.entries()) {
      const auto [other, is_new] = found.emplace(entry.name, shard);
      if (!is_new) {
        bad_index(index, "duplicate_tensor",
                  "tensor '" + entry.name + "' is in both " + other->second + " and " + shard);
      }
    }
  }
  for (const auto& [tensor, shard] : weight_map) {
    const auto at = found.find(tensor);
    if (at == found.end() || at->second != shard) {
      bad_index(index, "missing_tensor", "tensor '" + tensor + "' is not in " + shard);
    }
  }
  for (const auto& [tensor, shard] : found) {
    if (!weight_map.contains(tensor)) {
      bad_index(index, "unlisted_tensor", "tensor '" + tensor + "' of " + shard + " is not listed");
    }
  }
}

}  // namespace

std::vector<WeightFile> open_weight_files(const fs::path& dir) try {
  std::vector<WeightFile> files;
  const auto single = dir / "model.safetensors";
  if (fs::exists(single)) {
    files.push_back({single, SafetensorsFile(single)});
    return files;
  }
  const auto index = dir / "model.safetensors.index.json";
  if (!fs::exists(index)) {
    throw SafetensorsError("missing_file", dir.string() +
                                               ": neither model.safetensors nor "
                                               "model.safetensors.index.json is there");
  }
  const auto weight_map = read_weight_map(index);
  auto shards = open_shards(index, weight_map);
  check_shards(index, weight_map, shards);
  for (auto& [name, file] : shards) files.push_back(std::move(file));
  return files;
} catch (const fs::filesystem_error& error) {
  throw SafetensorsError("unreadable", error.what());
}

}  // namespace rollcall
