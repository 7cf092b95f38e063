// SPDX-License-Identifier: Apache-2.0
#include "model/weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>
#include <random>

#include "comms/error.h"
#include "model/stored_weights.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

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

[[noreturn]] void too_large(std::int64_t count, at::ScalarType dtype) {
  throw Error(std::to_string(count) + " parameters in " +
                  (dtype == at::kBFloat16 ? "bfloat16" : "float32") + " do not fit into memory",
              "use a smaller model or a machine with more memory");
}

at::Tensor allocate(std::int64_t count) {
  require_memory_for(count, at::kFloat);
  try {
    return at::zeros({count}, at::kFloat);
  } catch (const c10::Error&) {
    too_large(count, at::kFloat);
  }
}

}  // namespace

void require_memory_for(std::int64_t parameters, at::ScalarType dtype) {
  const auto bytes = static_cast<double>(parameters) * static_cast<double>(c10::elementSize(dtype));
  const auto physical_bytes =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  if (bytes > physical_bytes) too_large(parameters, dtype);
}

at::ScalarType policy_dtype(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  throw input_error("no policy computes in '" + name + "'", "use float32 or bfloat16");
}

FlatWeights make_flat_weights(const ModelSpec& spec) {
  return make_flat_weights(parameter_shapes(spec));
}

FlatWeights make_flat_weights(const NamedShapes& shapes) {
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

TensorSource source_of(const NamedTensors& tensors) {
  return [&tensors](const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? at::Tensor() : found->second;
  };
}

void load_weights(const fs::path& dir, const ModelSpec& spec, FlatWeights& weights) {
  StoredWeights stored(dir, spec, at::kFloat);
  for (auto& [name, tensor] : weights.tensors) tensor.copy_(stored.read(name));
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
