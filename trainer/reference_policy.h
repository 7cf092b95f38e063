// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "model/decoder.h"
#include "trainer/packing.h"

namespace rollcall {

// A policy that stays as it is: the one that the run began with, to say how far training has gone
// from it. Takes the memory of its weights. Single thread.
class ReferencePolicy {
 public:
  // The model in `dir`, with the PEFT adapter in `adapter` unless that is empty, rounded to
  // `dtype`.
  ReferencePolicy(const std::filesystem::path& dir, const std::filesystem::path& adapter,
                  const ModelSpec&, at::ScalarType dtype, std::int64_t valid_ids);

  // [N] log-probabilities of each batch's action tokens. `between` runs after each.
  std::vector<at::Tensor> logprobs(std::span<const PackedBatch> batches,
                                   const std::function<void()>& between) const;

 private:
  Decoder decoder_;
  std::int64_t valid_ids_;
};

// [S] float64, of each sequence in the batch: the sum over its action tokens of log(behavior /
// reference), each within +-20 nats (k1 of kl.h).
at::Tensor sequence_divergence(const PackedBatch&, const at::Tensor& reference_logprobs);

}  // namespace rollcall
