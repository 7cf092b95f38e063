// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <numbers>
#include <numeric>
#include <random>
#include <set>

#include "comms/error.h"
#include "model/weight_files.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kConfig = "config.json";
constexpr const char* kHead = "lm_head.weight";

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const auto size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

// The name of a tensor in a file, as errors call it.
std::string place(const fs::path& file, const std::string& tensor) {
  return file.string() + ": tensor '" + tensor + "'";
}

float from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// Bytes of 16-bit numbers at any alignment.
template <typename Convert>
void widen(std::span<const std::byte> bytes, float* out, Convert convert) {
  for (std::size_t i = 0; i < bytes.size() / 2; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + 2 * i, sizeof bits);
    out[i] = convert(bits);
  }
}

void read_floats(const fs::path& file, const SafetensorsEntry& entry, float* out) {
  if (entry.dtype == "F32") {
    if (!entry.data.empty()) std::memcpy(out, entry.data.data(), entry.data.size());
  } else if (entry.dtype == "BF16") {
    widen(entry.data, out, from_bfloat16);
  } else if (entry.dtype == "F16") {
    widen(entry.data, out,
          [](std::uint16_t bits) { return c10::detail::fp16_ieee_to_fp32_value(bits); });
  } else {
    throw input_error(place(file, entry.name) + " has dtype " + entry.dtype,
                      "weights must be F32, F16 or BF16: convert the checkpoint first");
  }
}

// Index of the first NaN or infinity, or the size. Looks at bits: exponent all ones.
std::size_t first_not_finite(std::span<const float> values) {
  constexpr std::uint32_t kExponent = 0x7f800000;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if ((std::bit_cast<std::uint32_t>(values[i]) & kExponent) == kExponent) return i;
  }
  return values.size();
}

bool ignored(const std::string& name) { return name.ends_with(".rotary_emb.inv_freq"); }

struct Extra {
  fs::path file;
  const SafetensorsEntry* entry;
};

// A tied model's file may repeat the embedding as its head; training would untie another one.
void check_extra(const Extra& extra, const ModelSpec& spec, const NamedTensors& tensors) {
  const auto& [file, entry] = extra;
  if (!spec.tied || entry->name != kHead) {
    throw input_error(
        place(file, entry->name) + " is not a parameter of this " + spec.model_type + " model",
        "config.json and the weights are of different models");
  }
  const auto& embedding = tensors.at(kEmbedding);
  check_shape(file, *entry, embedding, kConfig);
  if (!at::equal(read_tensor(file, *entry).to(embedding.device()), embedding)) {
    throw input_error(
        place(file, entry->name) + " differs from " + kEmbedding + " though config.json ties them",
        "set tie_word_embeddings to false in config.json, or remove the tensor");
  }
}

void check_complete(const fs::path& dir, const NamedTensors& wanted,
                    const std::set<std::string>& loaded) {
  for (const auto& [name, tensor] : wanted) {
    if (loaded.contains(name)) continue;
    throw input_error(dir.string() + ": tensor '" + name + "' of shape " +
                          shape_text(tensor.sizes()) + " is missing (" +
                          std::to_string(wanted.size() - loaded.size()) + " in all)",
                      "config.json and the weights are of different models, or a file is missing");
  }
}

// Standard normal numbers (Box and Muller 1958) that do not depend on the standard library.
class Normal {
 public:
  explicit Normal(std::uint64_t seed) : engine_(seed) {}

  void fill(std::span<float> out, double deviation) {
    for (auto& value : out) value = static_cast<float>(deviation * next());
  }

 private:
  // In (0, 1]: its logarithm is finite.
  double uniform() { return static_cast<double>((engine_() >> 11) + 1) * 0x1p-53; }

  double next() {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

  std::mt19937_64 engine_;
};

bool writes_to_residual(const std::string& name) {
  return name.ends_with(".o_proj.weight") || name.ends_with(".down_proj.weight");
}

void init_tensor(const std::string& name, const ModelSpec& spec, Normal& normal,
                 std::span<float> out) {
  if (name.ends_with("norm.weight")) {
    std::ranges::fill(out, 1.0F);
  } else if (name.ends_with(".bias")) {
    std::ranges::fill(out, 0.0F);
  } else {
    const double scale =
        writes_to_residual(name) ? std::sqrt(2.0 * static_cast<double>(spec.layers)) : 1;
    normal.fill(out, spec.initializer_range / scale);
  }
}

[[noreturn]] void too_large(std::int64_t count) {
  throw Error(std::to_string(count) + " parameters in float32 do not fit into memory",
              "use a smaller model or a machine with more memory");
}

// Asks before allocating: an overcommitting system would grant the memory and kill us on use.
at::Tensor allocate(std::int64_t count) {
  const auto bytes = static_cast<double>(count) * sizeof(float);
  const auto physical_bytes =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  if (bytes > physical_bytes) too_large(count);
  try {
    return at::zeros({count}, at::kFloat);
  } catch (const c10::Error&) {
    too_large(count);
  }
}

}  // namespace

at::Tensor read_tensor(const fs::path& file, const SafetensorsEntry& entry) {
  auto tensor = at::empty(entry.shape, at::kFloat);
  read_floats(file, entry, tensor.data_ptr<float>());
  const std::span values(tensor.const_data_ptr<float>(), static_cast<std::size_t>(tensor.numel()));
  const auto bad = first_not_finite(values);
  if (bad < values.size()) {
    throw input_error(place(file, entry.name) + " holds a value that is not finite, at element " +
                          std::to_string(bad),
                      "the checkpoint is damaged: take an earlier one");
  }
  return tensor;
}

void check_shape(const fs::path& file, const SafetensorsEntry& entry, const at::Tensor& target,
                 const std::string& config) {
  if (target.sizes() == c10::IntArrayRef(entry.shape)) return;
  throw input_error(place(file, entry.name) + " has shape " + shape_text(entry.shape) + ", " +
                        config + " asks for " + shape_text(target.sizes()),
                    config + " and the weights are of different models");
}

FlatWeights make_flat_weights(const ModelSpec& spec) {
  return make_flat_weights(parameter_shapes(spec));
}

FlatWeights make_flat_weights(
    std::span<const std::pair<std::string, std::vector<std::int64_t>>> shapes) {
  const auto elements_of = [](const std::vector<std::int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies{});
  };
  std::int64_t count = 0, offset = 0;
  for (const auto& [name, shape] : shapes) count += elements_of(shape);
  FlatWeights weights{allocate(count), {}};
  for (const auto& [name, shape] : shapes) {
    const std::int64_t elements = elements_of(shape);
    weights.tensors[name] = weights.flat.narrow(0, offset, elements).view(shape);
    offset += elements;
  }
  return weights;
}

void load_weights(const fs::path& dir, const ModelSpec& spec, FlatWeights& weights) {
  const auto files = open_weight_files(dir);
  std::set<std::string> loaded;
  std::vector<Extra> extras;
  for (const auto& file : files) {
    for (const auto& entry : file.contents.entries()) {
      const auto target = weights.tensors.find(entry.name);
      if (target != weights.tensors.end()) {
        check_shape(file.path, entry, target->second, kConfig);
        target->second.copy_(read_tensor(file.path, entry));
        loaded.insert(entry.name);
      } else if (!ignored(entry.name)) {
        extras.push_back({file.path, &entry});
      }
    }
  }
  check_complete(dir, weights.tensors, loaded);
  for (const auto& extra : extras) check_extra(extra, spec, weights.tensors);
}

void init_weights(const ModelSpec& spec, std::uint64_t seed, FlatWeights& weights) {
  Normal normal(seed);
  // In parameter_shapes() order, not the table's: the draws follow from the architecture alone.
  for (const auto& [name, shape] : parameter_shapes(spec)) {
    auto tensor = at::empty(shape, at::kFloat);
    init_tensor(name, spec, normal,
                {tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
    weights.tensors.at(name).copy_(tensor);
  }
}

}  // namespace rollcall
