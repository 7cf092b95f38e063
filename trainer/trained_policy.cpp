// SPDX-License-Identifier: Apache-2.0
#include "trainer/trained_policy.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "comms/error.h"
#include "model/stored_weights.h"

namespace rollcall {
namespace {

// The files stay open as long as the policy.
TrainedPolicy adapted(const std::filesystem::path& dir, const ModelSpec& spec, at::ScalarType dtype,
                      LoraAdapter adapter) {
  const auto stored = std::make_shared<StoredWeights>(dir, spec, dtype);
  return {spec, [stored](const std::string& name) { return stored->read(name); },
          std::move(adapter)};
}

}  // namespace

TrainedPolicy::TrainedPolicy(FlatWeights weights) : weights_(std::move(weights)) {}

TrainedPolicy::TrainedPolicy(const ModelSpec& spec, TensorSource base, LoraAdapter adapter)
    : adapter_(std::move(adapter)),
      merged_(with_lora(*adapter_, base)),
      base_xxh3_(fingerprint(spec, base)) {}

TensorSource TrainedPolicy::source() const {
  return adapter_ ? merged_ : source_of(weights_.tensors);
}

FlatWeights TrainedPolicy::all_weights(const ModelSpec& spec) const {
  if (!adapter_) return weights_;
  FlatWeights weights = make_flat_weights(spec);
  for (auto& [name, tensor] : weights.tensors) tensor.copy_(merged_(name));
  return weights;
}

void TrainedPolicy::bind(Decoder& decoder, const NamedTensors& leaves) const {
  if (adapter_) {
    decoder.bind(merged_, lora_leaves(*adapter_, leaves));
  } else {
    decoder.bind(leaves);
  }
}

std::optional<LoraOptions> TrainedPolicy::lora() const {
  return adapter_ ? std::optional(adapter_->options) : std::nullopt;
}

TrainedPolicy load_policy(const std::filesystem::path& dir, const ModelSpec& spec,
                          at::ScalarType dtype, const std::optional<LoraStart>& lora) {
  if (!lora) {
    FlatWeights weights = make_flat_weights(spec);
    load_weights(dir, spec, weights);
    return weights;
  }
  if (!lora->adapter.empty())
    return adapted(dir, spec, dtype, read_lora_adapter(lora->adapter, spec));
  LoraAdapter fresh = make_lora_adapter(spec, lora->options);
  init_lora(lora->seed, fresh);
  return adapted(dir, spec, dtype, fresh);
}

TrainedPolicy load_policy(const std::filesystem::path& dir, const ModelSpec& spec,
                          at::ScalarType dtype, const TrainState& state) {
  const TrainedPolicy policy = state.lora
                                   ? adapted(dir, spec, dtype, make_lora_adapter(spec, *state.lora))
                                   : TrainedPolicy(make_flat_weights(spec));
  const at::Tensor& masters = policy.masters().flat;
  if (state.masters.size() != static_cast<std::size_t>(masters.numel()) ||
      state.base_xxh3 != policy.base_xxh3())
    throw input_error("the checkpoint was made from another model than " + dir.string(),
                      "put the model that the run began with there again");
  std::copy(state.masters.begin(), state.masters.end(), masters.data_ptr<float>());
  return policy;
}

std::string fingerprint(const ModelSpec& spec, const TensorSource& source) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                       &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  for (const auto& [name, shape] : parameter_shapes(spec)) {
    const at::Tensor values = source(name).detach().to(at::kFloat).contiguous();
    XXH3_64bits_update(state.get(), values.const_data_ptr<float>(), values.nbytes());
  }
  return fmt::format("{:016x}", XXH3_64bits_digest(state.get()));
}

}  // namespace rollcall
