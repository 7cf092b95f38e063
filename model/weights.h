// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/model_spec.h"
#include "model/safetensors.h"

namespace rollcall {

// Parameters by Hugging Face name. A tied model has no "lm_head.weight".
using NamedTensors = std::map<std::string, at::Tensor>;

// All parameters as views of one contiguous float32 buffer in parameter_shapes() order: what the
// optimizer steps over, what is summed between learners and published to workers.
struct FlatWeights {
  at::Tensor flat;       // [parameter_count] float32, CPU or device
  NamedTensors tensors;  // views of `flat`
};
FlatWeights make_flat_weights(const ModelSpec&);  // zero-filled, CPU
FlatWeights make_flat_weights(
    std::span<const std::pair<std::string, std::vector<std::int64_t>>> shapes);  // in that order

// Fills `weights` from DIR/model.safetensors or the shards of model.safetensors.index.json, casting
// F32, F16, BF16 to float32. Throws an input Error that names tensor, expected shape and file for
// anything missing, extra, misshaped, of another dtype, NaN or infinite. Ignores rotary inv_freq;
// accepts a redundant lm_head.weight of a tied model if it equals the embedding.
void load_weights(const std::filesystem::path& dir, const ModelSpec&, FlatWeights& weights);

// Random initialisation (normal, std initializer_range, output projections scaled by 1/sqrt(2
// layers); norms 1), the same for the same seed. For sft from scratch.
void init_weights(const ModelSpec&, std::uint64_t seed, FlatWeights& weights);

// Writes DIR/model.safetensors (metadata {"format":"pt"}), in `dtype` "float32" or "bfloat16"
// (round to nearest even). If that takes more than `max_shard_bytes` (0: no limit), writes shards
// of at most that size, single larger tensors aside, and model.safetensors.index.json instead.
// Deletes weight files of an earlier call that loaders would take in their place. Throws Error for
// a value that is not finite in `dtype`.
void save_weights(const std::filesystem::path& dir, const NamedTensors&, const std::string& dtype,
                  std::int64_t max_shard_bytes = 0);

// One tensor of a file as float32, cast from F32, F16 or BF16. Throws an input Error for another
// dtype or a value that is not finite.
at::Tensor read_tensor(const std::filesystem::path& file, const SafetensorsEntry&);

// Throws an input Error unless the tensor in the file has the shape of `target`, which follows from
// `config`, the name of a file.
void check_shape(const std::filesystem::path& file, const SafetensorsEntry&,
                 const at::Tensor& target, const std::string& config);

// The tensor as save_weights() stores it: contiguous, on the CPU, in `dtype`.
at::Tensor stored_tensor(const at::Tensor&, const std::string& dtype);

}  // namespace rollcall
