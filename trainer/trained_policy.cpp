// SPDX-License-Identifier: Apache-2.0
#include "trainer/trained_policy.h"

#include <ATen/ops/from_blob.h>
#include <fmt/format.h>
#include <xxhash.h>

#include <memory>
#include <utility>

#include "comms/error.h"
#include "model/stored_weights.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// The files stay open as long as the source.
TensorSource open_weights(const fs::path& dir, const ModelSpec& spec, at::ScalarType dtype) {
  const auto stored = std::make_shared<StoredWeights>(dir, spec, dtype);
  return [stored](const std::string& name) { return stored->read(name); };
}

[[noreturn]] void foreign_checkpoint(const fs::path& folder, const fs::path& dir) {
  throw input_error(folder.string() + " was made from another model than " + dir.string(),
                    "put the model that the run began with there again");
}

// [count], where they lie.
at::Tensor tensor_of(const SharedFloats& floats) {
  auto* data = const_cast<float*>(floats.data());  // from_blob has no read-only form
  return at::from_blob(
      data, {static_cast<std::int64_t>(floats.size())}, [floats](void*) {}, at::kFloat);
}

// The parameters in a flat tensor of them.
TensorSource slices_of(const at::Tensor& flat, const ModelSpec& spec) {
  NamedTensors tensors;
  std::int64_t offset = 0;
  for (const auto& [name, shape] : parameter_shapes(spec)) {
    const auto elements = c10::multiply_integers(shape);
    tensors[name] = flat.narrow(0, offset, elements).view(shape);
    offset += elements;
  }
  return
      [tensors = std::move(tensors)](const std::string& name) { return source_of(tensors)(name); };
}

// What a decoder of the spec `parts` asks for, from a directory of a model of `spec`.
TrainedPolicy load_parts(const fs::path& dir, const ModelSpec& spec, const ModelSpec& parts,
                         at::ScalarType dtype, const std::optional<LoraStart>& lora) {
  if (!lora) {
    FlatWeights weights = make_flat_weights(parts);
    load_weights(dir, spec, weights);
    return weights;
  }
  LoraAdapter adapter;
  if (lora->adapter.empty()) {
    adapter = make_lora_adapter(spec, lora->options);
    init_lora(lora->seed, adapter);
  } else {
    adapter = read_lora_adapter(lora->adapter, spec);
  }
  return {parts, open_weights(dir, spec, dtype), std::move(adapter)};
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

TrainedPolicy load_policy(const fs::path& dir, const ModelSpec& spec, at::ScalarType dtype,
                          const std::optional<LoraStart>& lora) {
  return load_parts(dir, spec, spec, dtype, lora);
}

ModelSpec without_head(ModelSpec spec) {
  spec.tied = true;  // the decoder then asks for none
  return spec;
}

TrainedPolicy load_trunk(const fs::path& dir, const ModelSpec& spec, at::ScalarType dtype,
                         const std::optional<LoraStart>& lora) {
  return load_parts(dir, spec, without_head(spec), dtype, lora);
}

StoredPolicy stored_policy(const fs::path& dir, const ModelSpec& spec, const fs::path& adapter) {
  const auto base = open_weights(dir, spec, at::kFloat);
  if (adapter.empty()) return {base, std::nullopt};
  auto read = read_lora_adapter(adapter, spec);
  return {with_lora(read, base), std::move(read)};
}

StoredPolicy checkpointed_policy(const fs::path& folder, const fs::path& dir,
                                 const ModelSpec& spec) {
  const TrainState state = load_checkpoint(folder);
  const at::Tensor masters = tensor_of(state.policy.masters);
  if (!state.lora) {
    if (masters.numel() != parameter_count(spec)) foreign_checkpoint(folder, dir);
    return {slices_of(masters, spec), std::nullopt};
  }
  const auto base = open_weights(dir, spec, at::kFloat);
  LoraAdapter adapter = make_lora_adapter(spec, *state.lora);
  if (masters.numel() != adapter.parameters.flat.numel() ||
      state.base_xxh3 != fingerprint(spec, base))
    foreign_checkpoint(folder, dir);
  adapter.parameters.flat.copy_(masters);
  return {with_lora(adapter, base), std::move(adapter)};
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
