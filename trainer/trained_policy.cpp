// SPDX-License-Identifier: Apache-2.0
#include "trainer/trained_policy.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "comms/error.h"

namespace rollcall {

TrainedPolicy::TrainedPolicy(FlatWeights weights) : weights_(std::move(weights)) {}

TrainedPolicy::TrainedPolicy(FlatWeights weights, LoraAdapter adapter)
    : weights_(std::move(weights)),
      adapter_(std::move(adapter)),
      base_xxh3_(fingerprint(weights_)) {
  for (const auto& module : adapter_->modules) {
    const std::string name = module + ".weight";
    base_[name] = weights_.tensors.at(name).clone();
  }
  masters_changed();
}

void TrainedPolicy::masters_changed() {
  if (adapter_) merge_lora(*adapter_, base_, weights_.tensors);
}

void TrainedPolicy::bind(Decoder& decoder, const NamedTensors& leaves) const {
  if (adapter_) {
    decoder.bind(weights_.tensors, lora_leaves(*adapter_, leaves));
  } else {
    decoder.bind(leaves);
  }
}

std::optional<LoraOptions> TrainedPolicy::lora() const {
  return adapter_ ? std::optional(adapter_->options) : std::nullopt;
}

TrainedPolicy load_policy(const std::filesystem::path& dir, const ModelSpec& spec,
                          const std::optional<LoraStart>& lora) {
  FlatWeights weights = make_flat_weights(spec);
  load_weights(dir, spec, weights);
  if (!lora) return weights;
  if (!lora->adapter.empty()) return {weights, read_lora_adapter(lora->adapter, spec)};
  LoraAdapter fresh = make_lora_adapter(spec, lora->options);
  init_lora(lora->seed, fresh);
  return {weights, fresh};
}

TrainedPolicy load_policy(const std::filesystem::path& dir, const ModelSpec& spec,
                          const TrainState& state) {
  FlatWeights weights = make_flat_weights(spec);
  if (state.lora) load_weights(dir, spec, weights);
  TrainedPolicy policy = state.lora ? TrainedPolicy(weights, make_lora_adapter(spec, *state.lora))
                                    : TrainedPolicy(weights);
  const at::Tensor& masters = policy.masters().flat;
  if (state.masters.size() != static_cast<std::size_t>(masters.numel()) ||
      state.base_xxh3 != policy.base_xxh3())
    throw input_error("the checkpoint was made from another model than " + dir.string(),
                      "put the model that the run began with there again");
  std::copy(state.masters.begin(), state.masters.end(), masters.data_ptr<float>());
  policy.masters_changed();
  return policy;
}

std::string fingerprint(const FlatWeights& weights) {
  return fmt::format("{:016x}",
                     XXH3_64bits(weights.flat.const_data_ptr<float>(), weights.flat.nbytes()));
}

}  // namespace rollcall
