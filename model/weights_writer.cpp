// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
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

std::int64_t stored_bytes(const std::vector<std::int64_t>& shape, at::ScalarType type) {
  return c10::multiply_integers(shape) * static_cast<std::int64_t>(c10::elementSize(type));
}

std::vector<NamedShapes> split(const NamedShapes& shapes, at::ScalarType type, std::int64_t limit) {
  std::vector<NamedShapes> shards(1);
  std::int64_t used = 0;
  for (const auto& [name, shape] : shapes) {
    const auto bytes = stored_bytes(shape, type);
    if (limit > 0 && used + bytes > limit && !shards.back().empty()) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().emplace_back(name, shape);
    used += bytes;
  }
  return shards;
}

at::Tensor checked(const std::string& place, const at::Tensor& values,
                   const std::vector<std::int64_t>& shape, const std::string& dtype) {
  if (!values.defined() || values.sizes() != c10::IntArrayRef(shape))
    throw Error(place + " is missing or misshaped among the weights to be saved");
  const at::Tensor here = values.detach().to(at::kCPU);
  if (const auto bad = first_not_finite(here, stored_dtype(dtype).type))
    throw Error(place + " holds " + bad->text(),
                std::isfinite(bad->value)
                    ? dtype + " cannot hold that value: save as float32"
                    : "the training diverged: go back to an earlier checkpoint");
  return here;
}

void write_shard(const fs::path& file, const NamedShapes& shapes, const TensorSource& weights,
                 const std::string& dtype) {
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, shape] : shapes)
    entries.push_back({name, stored_dtype(dtype).name, shape, {}});
  at::Tensor stored;  // what is being written
  write_safetensors(file, std::move(entries), {{"format", "pt"}},
                    [&](const SafetensorsEntry& entry) -> std::span<const std::byte> {
                      stored.reset();  // before the next one is there
                      const auto place = file.string() + ": tensor '" + entry.name + "'";
                      stored = stored_tensor(
                          checked(place, weights(entry.name), entry.shape, dtype), dtype);
                      return {static_cast<const std::byte*>(stored.const_data_ptr()),
                              static_cast<std::size_t>(stored.nbytes())};
                    });
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

void save_weights(const fs::path& dir, const NamedShapes& shapes, const TensorSource& weights,
                  const std::string& dtype, std::int64_t max_shard_bytes) try {
  const auto type = stored_dtype(dtype).type;
  const auto shards = split(shapes, type, max_shard_bytes);
  std::set<std::string> written;
  std::map<std::string, std::string> weight_map;
  std::int64_t total_bytes = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto name = shards.size() == 1 ? kSingle : shard_name(i, shards.size());
    write_shard(dir / name, shards[i], weights, dtype);
    written.insert(name);
    for (const auto& [tensor, shape] : shards[i]) {
      weight_map[tensor] = name;
      total_bytes += stored_bytes(shape, type);
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

void save_weights(const fs::path& dir, const NamedTensors& tensors, const std::string& dtype,
                  std::int64_t max_shard_bytes) {
  NamedShapes shapes;
  for (const auto& [name, tensor] : tensors) shapes.emplace_back(name, tensor.sizes().vec());
  save_weights(dir, shapes, source_of(tensors), dtype, max_shard_bytes);
}

}  // namespace rollcall
