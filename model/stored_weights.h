// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "model/model_spec.h"
#include "model/weight_files.h"
#include "model/weights.h"

namespace rollcall {

// The parameters in DIR/model.safetensors or the shards of model.safetensors.index.json, read one
// at a time where they lie: no memory of this process ever holds them all. Ignores rotary inv_freq;
// accepts a redundant lm_head.weight of a tied model if it equals the embedding. Throws input
// Errors that name tensor, expected shape and file: the constructor for anything missing, extra,
// misshaped or not of F32, F16 or BF16; read() for a value that is NaN or infinite. Single thread.
class StoredWeights {
 public:
  // For a policy of `dtype`: what is not finite once rounded to it is refused.
  StoredWeights(const std::filesystem::path& dir, const ModelSpec&, at::ScalarType dtype);

  // The parameter in its stored type, read-only and valid until the next call; undefined if the
  // model has none of this name.
  at::Tensor read(const std::string& name);
  TensorSource source();  // read(); refers to this object
  void check_values();    // reads everything once

 private:
  struct Place {
    const WeightFile* file;
    const SafetensorsEntry* entry;
  };
  void add(const Place&, const ModelSpec&);
  void check_redundant_head(const Place&);
  void check_complete(const std::filesystem::path& dir) const;

  std::vector<WeightFile> files_;
  at::ScalarType dtype_;
  std::map<std::string, std::vector<std::int64_t>> shapes_;
  std::map<std::string, Place> places_;
  const SafetensorsEntry* current_ = nullptr;  // whose memory the next read gives back
};

// A tensor of `file` in its stored type, as it lies there or a copy. Throws an input Error unless
// it has the shape that `config`, a file, asks for, is of F32, F16 or BF16, and finite in `dtype`.
at::Tensor checked_tensor(const std::filesystem::path& file, const SafetensorsEntry&,
                          const std::vector<std::int64_t>& shape, const std::string& config,
                          at::ScalarType dtype);

}  // namespace rollcall
