// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "model/safetensors.h"
#include "model/weights.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

struct StoredDtype {
  const char* name;  // in safetensors
  at::ScalarType type;
};

StoredDtype stored_dtype(const std::string& dtype) {
  if (dtype == "float32") return {"F32", at::kFloat};
  if (dtype == "bfloat16") return {"BF16", at::kBFloat16};
  throw input_error("cannot write weights as '" + dtype + "'", "use float32 or bfloat16");
}

using Shard = std::vector<std::string>;  // names of tensors

std::int64_t stored_bytes(const at::Tensor& tensor, at::ScalarType type) {
  return tensor.numel() * static_cast<std::int64_t>(c10::elementSize(type));
}

std::vector<Shard> split(const NamedTensors& tensors, at::ScalarType type, std::int64_t limit) {
  std::vector<Shard> shards(1);
  std::int64_t used = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto bytes = stored_bytes(tensor, type);
    if (limit > 0 && used + bytes > limit && !shards.back().empty()) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(name);
    used += bytes;
  }
  return shards;
}

void write_shard(const fs::path& file, const Shard& names, const NamedTensors& tensors,
                 const std::string& dtype) {
  std::vector<at::Tensor> alive;  // what the entries point into
  std::vector<SafetensorsEntry> entries;
  for (const auto& name : names) {
    const auto& stored = alive.emplace_back(stored_tensor(tensors.at(name), dtype));
    if (!at::isfinite(stored).all().item<bool>()) {
      throw Error(
          file.string() + ": tensor '" + name + "' holds a value that is not finite in " + dtype,
          "the training diverged: go back to an earlier checkpoint");
    }
    const auto* bytes = static_cast<const std::byte*>(stored.const_data_ptr());
    entries.push_back({name,
                       stored_dtype(dtype).name,
                       stored.sizes().vec(),
                       {bytes, static_cast<std::size_t>(stored.nbytes())}});
  }
  write_safetensors(file, std::move(entries), {{"format", "pt"}});
}

std::string padded(std::size_t number) {
  constexpr std::size_t kDigits = 5;
  const auto digits = std::to_string(number);
  return std::string(kDigits - std::min(kDigits, digits.size()), '0') + digits;
}

std::string shard_name(std::size_t index, std::size_t count) {
  return "model-" + padded(index + 1) + "-of-" + padded(count) + ".safetensors";
}

void write_index(const fs::path& dir, const std::map<std::string, std::string>& weight_map,
                 std::int64_t total_bytes) {
  const nlohmann::ordered_json index{{"metadata", {{"total_size", total_bytes}}},
                                     {"weight_map", weight_map}};
  write_durably(dir / kIndex, index.dump(2) + "\n");
}

bool is_weight_file(const std::string& name) {
  return name == kSingle || name == kIndex ||
         (name.size() == shard_name(0, 1).size() && name.starts_with("model-") &&
          name.substr(11, 4) == "-of-");
}

void delete_others(const fs::path& dir, const std::set<std::string>& written) {
  std::vector<fs::path> stale;
  for (const auto& item : fs::directory_iterator(dir)) {
    const auto name = item.path().filename().string();
    if (is_weight_file(name) && !written.contains(name)) stale.push_back(item.path());
  }
  for (const auto& path : stale) fs::remove(path);
}

}  // namespace

at::Tensor stored_tensor(const at::Tensor& tensor, const std::string& dtype) {
  return tensor.detach().to(at::kCPU, stored_dtype(dtype).type).contiguous();
}

void save_weights(const fs::path& dir, const NamedTensors& tensors, const std::string& dtype,
                  std::int64_t max_shard_bytes) try {
  const auto type = stored_dtype(dtype).type;
  const auto shards = split(tensors, type, max_shard_bytes);
  std::set<std::string> written;
  std::map<std::string, std::string> weight_map;
  std::int64_t total_bytes = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto name = shards.size() == 1 ? kSingle : shard_name(i, shards.size());
    write_shard(dir / name, shards[i], tensors, dtype);
    written.insert(name);
    for (const auto& tensor : shards[i]) {
      weight_map[tensor] = name;
      total_bytes += stored_bytes(tensors.at(tensor), type);
    }
  }
  if (shards.size() > 1) {
    write_index(dir, weight_map, total_bytes);
    written.insert(kIndex);
  }
  delete_others(dir, written);
} catch (const fs::filesystem_error& error) {
  throw Error(error.what(), "check the folder's permissions");
}

}  // namespace rollcall
