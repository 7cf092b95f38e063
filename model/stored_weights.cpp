// SPDX-License-Identifier: Apache-2.0
#include "model/stored_weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>

#include "comms/error.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";
constexpr std::int64_t kPiece = 1 << 18;  // elements looked at together: they stay in the caches

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const auto size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

// The name of a tensor in a file, as errors call it.
std::string place(const fs::path& file, const std::string& tensor) {
  return file.string() + ": tensor '" + tensor + "'";
}

std::optional<at::ScalarType> float_type(const std::string& dtype) {
  if (dtype == "F32") return at::kFloat;
  if (dtype == "F16") return at::kHalf;
  if (dtype == "BF16") return at::kBFloat16;
  return std::nullopt;
}

void check_dtype(const fs::path& file, const SafetensorsEntry& entry) {
  if (float_type(entry.dtype)) return;
  throw input_error(place(file, entry.name) + " has dtype " + entry.dtype,
                    "weights must be F32, F16 or BF16: convert the checkpoint first");
}

void check_shape(const fs::path& file, const SafetensorsEntry& entry,
                 const std::vector<std::int64_t>& wanted,
                 const std::string& config = "config.json") {
  if (entry.shape == wanted) return;
  throw input_error(place(file, entry.name) + " has shape " + shape_text(entry.shape) + ", " +
                        config + " asks for " + shape_text(wanted),
                    config + " and the weights are of different models");
}

// The entry's bytes as they lie in the file, or a copy where they are misaligned.
at::Tensor tensor_of(const SafetensorsEntry& entry) {
  const auto type = *float_type(entry.dtype);
  auto* bytes = const_cast<std::byte*>(entry.data.data());  // from_blob has no read-only form
  if (reinterpret_cast<std::uintptr_t>(bytes) % c10::elementSize(type) == 0)
    return at::from_blob(bytes, entry.shape, type);
  at::Tensor copy = at::empty(entry.shape, type);
  if (!entry.data.empty()) std::memcpy(copy.data_ptr(), bytes, entry.data.size());
  return copy;
}

// Index of the first NaN or infinity, or the size. Looks at bits: exponent all ones.
std::int64_t index_of_not_finite(const at::Tensor& values) {
  constexpr std::uint32_t kExponent = 0x7f800000;
  const auto* from = values.const_data_ptr<float>();
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    if ((std::bit_cast<std::uint32_t>(from[i]) & kExponent) == kExponent) return i;
  }
  return values.numel();
}

void check_finite(const fs::path& file, const SafetensorsEntry& entry, const at::Tensor& values,
                  at::ScalarType dtype) {
  const auto bad = first_not_finite(values, dtype);
  if (!bad) return;
  throw input_error(place(file, entry.name) + " holds " + bad->text(),
                    std::isfinite(bad->value)
                        ? "bfloat16 cannot hold that value: set model.dtype to float32"
                        : "the checkpoint is damaged: take an earlier one");
}

bool same_values(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.view({-1}), y = b.view({-1});
  for (std::int64_t begin = 0; begin < x.numel(); begin += kPiece) {
    const std::int64_t end = std::min(x.numel(), begin + kPiece);
    if (!at::equal(x.slice(0, begin, end).to(at::kFloat), y.slice(0, begin, end).to(at::kFloat)))
      return false;
  }
  return true;
}

bool ignored(const std::string& name) { return name.ends_with(".rotary_emb.inv_freq"); }

}  // namespace

std::string NotFinite::text() const {
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  return std::string(digits.data(), end) + " at element " + std::to_string(element);
}

std::optional<NotFinite> first_not_finite(const at::Tensor& values, at::ScalarType dtype) {
  const at::Tensor flat = values.detach().reshape({-1});
  for (std::int64_t begin = 0; begin < flat.numel(); begin += kPiece) {
    const at::Tensor piece = flat.slice(0, begin, std::min(flat.numel(), begin + kPiece));
    const std::int64_t bad = index_of_not_finite(piece.to(dtype).to(at::kFloat));
    if (bad != piece.numel()) return NotFinite{begin + bad, piece[bad].item<float>()};
  }
  return std::nullopt;
}

at::Tensor checked_tensor(const fs::path& file, const SafetensorsEntry& entry,
                          const std::vector<std::int64_t>& shape, const std::string& config,
                          at::ScalarType dtype) {
  check_shape(file, entry, shape, config);
  check_dtype(file, entry);
  at::Tensor values = tensor_of(entry);
  check_finite(file, entry, values, dtype);
  return values;
}

StoredWeights::StoredWeights(const fs::path& dir, const ModelSpec& spec, at::ScalarType dtype)
    : files_(open_weight_files(dir)), dtype_(dtype) {
  for (auto& [name, shape] : parameter_shapes(spec)) shapes_.emplace(name, shape);
  std::optional<Place> redundant_head;
  for (const auto& file : files_) {
    for (const auto& entry : file.contents.entries()) {
      if (spec.tied && entry.name == kHead) {
        redundant_head = {&file, &entry};
      } else if (!ignored(entry.name)) {
        add({&file, &entry}, spec);
      }
    }
  }
  check_complete(dir);
  if (redundant_head) check_redundant_head(*redundant_head);
}

void StoredWeights::add(const Place& found, const ModelSpec& spec) {
  const auto& [file, entry] = found;
  const auto wanted = shapes_.find(entry->name);
  if (wanted == shapes_.end()) {
    throw input_error(place(file->path, entry->name) + " is not a parameter of this " +
                          spec.model_type + " model",
                      "config.json and the weights are of different models");
  }
  check_shape(file->path, *entry, wanted->second);
  check_dtype(file->path, *entry);
  places_.emplace(entry->name, found);
}

void StoredWeights::check_complete(const fs::path& dir) const {
  for (const auto& [name, shape] : shapes_) {
    if (places_.contains(name)) continue;
    throw input_error(dir.string() + ": tensor '" + name + "' of shape " + shape_text(shape) +
                          " is missing (" + std::to_string(shapes_.size() - places_.size()) +
                          " in all)",
                      "config.json and the weights are of different models, or a file is missing");
  }
}

// A tied model's file may repeat the embedding as its head; training would untie another one.
void StoredWeights::check_redundant_head(const Place& head) {
  check_shape(head.file->path, *head.entry, shapes_.at(kEmbedding));
  check_dtype(head.file->path, *head.entry);
  if (!same_values(tensor_of(*head.entry), read(kEmbedding))) {
    throw input_error(place(head.file->path, kHead) + " differs from " + kEmbedding +
                          " though config.json ties them",
                      "set tie_word_embeddings to false in config.json, or remove the tensor");
  }
  SafetensorsFile::release(*head.entry);
}

at::Tensor StoredWeights::read(const std::string& name) {
  if (current_ != nullptr) SafetensorsFile::release(*current_);
  const auto found = places_.find(name);
  if (found == places_.end()) return {};
  const auto& [file, entry] = found->second;
  current_ = entry;
  at::Tensor values = tensor_of(*entry);
  check_finite(file->path, *entry, values, dtype_);
  return values;
}

TensorSource StoredWeights::source() {
  return [this](const std::string& name) { return read(name); };
}

void StoredWeights::check_values() {
  for (const auto& [name, shape] : shapes_) read(name);
}

}  // namespace rollcall
