// SPDX-License-Identifier: Apache-2.0
#include "model/lora.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <random>
#include <utility>

#include "comms/error.h"
#include "model/cpu_team.h"

namespace rollcall {
namespace {

constexpr auto kTargets = std::to_array<std::string_view>(
    {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"});
constexpr std::string_view kWeight = ".weight";

bool is_named(std::string_view module, std::string_view target) {
  return module == target || (module.size() > target.size() && module.ends_with(target) &&
                              module[module.size() - target.size() - 1] == '.');
}

bool is_adaptable(std::string_view module) {
  return std::ranges::any_of(kTargets, [&](auto name) { return is_named(module, name); });
}

template <typename Names>
std::string joined(const Names& names, const char* separator) {
  std::string text;
  for (const auto& name : names) (text += text.empty() ? "" : separator) += name;
  return text;
}

void check_targets(const std::vector<std::string>& targets,
                   const std::vector<std::string>& modules) {
  const std::string advice = "use some of " + joined(kTargets, ", ");
  if (targets.empty()) throw input_error("LoRA: there are no targets", advice);
  for (const auto& target : targets) {
    const auto hit = [&](const auto& module) { return is_named(module, target); };
    if (!std::ranges::any_of(modules, hit))
      throw input_error(
          "LoRA: the target '" + target + "' names no linear layer of this model's blocks", advice);
  }
}

std::string shortest(double value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return {text.data(), end};
}

// out = base + scaling * b @ a for one row. Elementwise along the row, and rank after rank: neither
// threads nor the vector width reach the bits.
void merge_row(const float* __restrict base, const float* __restrict a, const float* __restrict b,
               std::int64_t rank, std::int64_t in, float scaling, float* __restrict sum,
               float* out) {
  std::fill_n(sum, in, 0.0F);
  for (std::int64_t k = 0; k < rank; ++k) {
    const float factor = b[k];
    const float* row = a + k * in;
    for (std::int64_t i = 0; i < in; ++i) sum[i] += factor * row[i];
  }
  for (std::int64_t i = 0; i < in; ++i) out[i] = base[i] + scaling * sum[i];
}

void merge_rows(const at::Tensor& base, const at::Tensor& a, const at::Tensor& b, float scaling,
                at::Tensor& merged) {
  const std::int64_t rank = a.size(0), in = a.size(1);
  const auto* from = base.const_data_ptr<float>();
  const auto* a_rows = a.const_data_ptr<float>();
  const auto* b_rows = b.const_data_ptr<float>();
  auto* to = merged.data_ptr<float>();
  parallel(b.size(0), 2 * rank * in, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> sum(static_cast<std::size_t>(in));
    for (std::int64_t row = begin; row < end; ++row)
      merge_row(from + row * in, a_rows, b_rows + row * rank, rank, in, scaling, sum.data(),
                to + row * in);
  });
}

}  // namespace

std::span<const std::string_view> lora_target_names() { return kTargets; }

std::string lora_a_key(const std::string& module) {
  return "base_model.model." + module + ".lora_A.weight";
}

std::string lora_b_key(const std::string& module) {
  return "base_model.model." + module + ".lora_B.weight";
}

double lora_scaling(const LoraOptions& options) {
  const auto rank = static_cast<double>(options.rank);
  return options.alpha / (options.rslora ? std::sqrt(rank) : rank);
}

LoraAdapter make_lora_adapter(const ModelSpec& spec, const LoraOptions& options) {
  LoraAdapter adapter{options, {}, {}};
  std::vector<std::string> adaptable;
  NamedShapes shapes;
  for (const auto& [name, shape] : parameter_shapes(spec)) {
    if (!name.ends_with(kWeight)) continue;
    const std::string module = name.substr(0, name.size() - kWeight.size());
    if (!is_adaptable(module)) continue;
    adaptable.push_back(module);
    const auto hit = [&](const auto& target) { return is_named(module, target); };
    if (!std::ranges::any_of(options.targets, hit)) continue;
    adapter.modules.push_back(module);
    shapes.push_back({lora_a_key(module), {options.rank, shape[1]}});
    shapes.push_back({lora_b_key(module), {shape[0], options.rank}});
  }
  check_targets(options.targets, adaptable);
  adapter.parameters = make_flat_weights(shapes);
  return adapter;
}

void init_lora(std::uint64_t seed, LoraAdapter& adapter) {
  std::mt19937_64 engine(seed);
  for (const auto& module : adapter.modules) {
    const at::Tensor& a = adapter.parameters.tensors.at(lora_a_key(module));
    const double bound = 1 / std::sqrt(static_cast<double>(a.size(1)));
    for (auto* value = a.data_ptr<float>(); value != a.data_ptr<float>() + a.numel(); ++value) {
      const double uniform = static_cast<double>(engine() >> 11) * 0x1p-53;  // in [0, 1)
      *value = static_cast<float>(bound * (2 * uniform - 1));
    }
    adapter.parameters.tensors.at(lora_b_key(module)).zero_();
  }
}

at::Tensor merge_lora(const LoraAdapter& adapter, const std::string& module,
                      const at::Tensor& weight) {
  const at::Tensor base = weight.detach().to(at::kFloat).contiguous();
  at::Tensor merged = at::empty(base.sizes(), at::kFloat);
  merge_rows(base, adapter.parameters.tensors.at(lora_a_key(module)),
             adapter.parameters.tensors.at(lora_b_key(module)),
             static_cast<float>(lora_scaling(adapter.options)), merged);
  return merged;
}

TensorSource with_lora(const LoraAdapter& adapter, TensorSource base) {
  return [adapter, base = std::move(base)](const std::string& name) {
    const at::Tensor values = base(name);
    if (!name.ends_with(kWeight)) return values;
    const std::string module = name.substr(0, name.size() - kWeight.size());
    const bool adapted = adapter.parameters.tensors.contains(lora_a_key(module));
    return adapted ? merge_lora(adapter, module, values) : values;
  };
}

std::map<std::string, LoraLeaves> lora_leaves(const LoraAdapter& adapter,
                                              const NamedTensors& leaves) {
  std::map<std::string, LoraLeaves> by_module;
  for (const auto& module : adapter.modules)
    by_module[module] = {leaves.at(lora_a_key(module)), leaves.at(lora_b_key(module)),
                         lora_scaling(adapter.options)};
  return by_module;
}

std::string describe(const LoraOptions& options) {
  return "rank " + std::to_string(options.rank) + ", alpha " + shortest(options.alpha) +
         ", rslora " + (options.rslora ? "on" : "off") + ", targets " +
         joined(options.targets, " ");
}

}  // namespace rollcall
