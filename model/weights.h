// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/model_spec.h"

namespace rollcall {

// Parameters by Hugging Face name. A tied model has no "lm_head.weight".
using NamedTensors = std::map<std::string, at::Tensor>;

// Gives a parameter by its name, to be read before the next call; undefined if there is none of
// this name.
using TensorSource = std::function<at::Tensor(const std::string& name)>;
TensorSource source_of(const NamedTensors&);  // refers to the table

// All parameters as views of one contiguous float32 buffer in parameter_shapes() order: what the
// optimizer steps over, what is summed between learners and published to workers.
struct FlatWeights {
  at::Tensor flat;       // [parameter_count] float32, CPU or device
  NamedTensors tensors;  // views of `flat`
};
FlatWeights make_flat_weights(const ModelSpec&);    // zero-filled, CPU
FlatWeights make_flat_weights(const NamedShapes&);  // in that order

// Fills `weights` from the files of a Hugging Face directory, as StoredWeights reads them.
void load_weights(const std::filesystem::path& dir, const ModelSpec&, FlatWeights& weights);

// Random initialisation (normal, std initializer_range, output projections scaled by 1/sqrt(2
// layers); norms 1), the same for the same seed. For sft from scratch.
void init_weights(const ModelSpec&, std::uint64_t seed, FlatWeights& weights);

// Writes DIR/model.safetensors (metadata {"format":"pt"}), in `dtype` "float32" or "bfloat16"
// (round to nearest even). If that takes more than `max_shard_bytes` (0: no limit), writes shards
// of at most that size, single larger tensors aside, and model.safetensors.index.json instead.
// Deletes weight files of an earlier call that loaders would take in their place. Holds one tensor
// at a time. Throws Error for a tensor that the source has not or has in another shape, and for a
// value that is not finite in `dtype`.
void save_weights(const std::filesystem::path& dir, const NamedShapes&, const TensorSource&,
                  const std::string& dtype, std::int64_t max_shard_bytes = 0);
void save_weights(const std::filesystem::path& dir, const NamedTensors&, const std::string& dtype,
                  std::int64_t max_shard_bytes = 0);

// Throws Error if this machine's memory cannot hold `parameters` of `dtype` at all. To be asked
// before allocating them: an overcommitting system would grant the memory and kill us on use.
void require_memory_for(std::int64_t parameters, at::ScalarType dtype);

// at::kFloat or at::kBFloat16 for "float32" or "bfloat16"; throws Error for anything else.
at::ScalarType policy_dtype(const std::string& name);

// A value that is not finite in some type.
struct NotFinite {
  std::int64_t element;
  float value;  // before it was rounded to that type

  std::string text() const;  // "nan at element 5"
};

// The first value of a CPU tensor of any float type that is not finite once rounded to `dtype`.
std::optional<NotFinite> first_not_finite(const at::Tensor&, at::ScalarType dtype);

// The tensor as save_weights() stores it: contiguous, on the CPU, in `dtype`.
at::Tensor stored_tensor(const at::Tensor&, const std::string& dtype);

}  // namespace rollcall
