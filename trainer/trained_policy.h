// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "model/decoder.h"
#include "model/lora.h"
#include "model/weights.h"
#include "trainer/checkpoint.h"

namespace rollcall {

// The policy as a learner holds it: masters, which are trained, and the weights that follow from
// them, which are sampled with, published and exported. Copies share storage. Single thread.
class TrainedPolicy {
 public:
  // Every weight is trained: masters and weights are the same.
  TrainedPolicy(FlatWeights weights);
  // The adapter is trained. The frozen weights are read from `base` again and again, and are never
  // held: it must give the same ones as long as the policy lives.
  TrainedPolicy(const ModelSpec&, TensorSource base, LoraAdapter adapter);

  const FlatWeights& masters() const { return adapter_ ? adapter_->parameters : weights_; }
  const LoraAdapter* adapter() const { return adapter_ ? &*adapter_ : nullptr; }

  TensorSource source() const;  // the weights; refers to this object

  // `leaves` are the masters, or share their storage, and get the gradients.
  void bind(Decoder&, const NamedTensors& leaves) const;

  // What checkpoints keep to know their run again; nothing where every weight is trained.
  std::optional<LoraOptions> lora() const;
  const std::string& base_xxh3() const { return base_xxh3_; }  // fingerprint of the frozen weights

 private:
  FlatWeights weights_;  // where every weight is trained
  std::optional<LoraAdapter> adapter_;
  TensorSource merged_;
  std::string base_xxh3_;
};

// How a LoRA run begins.
struct LoraStart {
  LoraOptions options;            // of a fresh adapter
  std::uint64_t seed = 0;         // of its values
  std::filesystem::path adapter;  // PEFT directory to start from instead; empty: none
};

// The policy in a Hugging Face directory, to be trained as a whole, or through an adapter if there
// is a `lora`. `dtype` is what it is rounded to. Throws an input Error for files that cannot be
// used.
TrainedPolicy load_policy(const std::filesystem::path& dir, const ModelSpec&, at::ScalarType dtype,
                          const std::optional<LoraStart>& lora);

// The spec without an output matrix, and the same weights without it: what a critic begins as.
ModelSpec without_head(ModelSpec);
TrainedPolicy load_trunk(const std::filesystem::path& dir, const ModelSpec&, at::ScalarType dtype,
                         const std::optional<LoraStart>& lora);

// A policy at rest. Its weights are read from files as they are asked for, float32 or as stored.
struct StoredPolicy {
  TensorSource weights;                // keeps the files open; an adapter is merged
  std::optional<LoraAdapter> adapter;  // nothing: there is none
};

// The policy in a Hugging Face directory, with the adapter of a PEFT directory unless that is
// empty.
StoredPolicy stored_policy(const std::filesystem::path& dir, const ModelSpec&,
                           const std::filesystem::path& adapter = {});

// The policy in a complete checkpoint of a run that began with the model in `dir`. Throws an input
// Error if it was made from another one.
StoredPolicy checkpointed_policy(const std::filesystem::path& folder,
                                 const std::filesystem::path& dir, const ModelSpec&);

// Hex digits of XXH3-64 over the values in float32, in parameter_shapes() order.
std::string fingerprint(const ModelSpec&, const TensorSource&);

}  // namespace rollcall
