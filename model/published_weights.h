// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>

#include "model/model_spec.h"
#include "model/weights.h"

namespace rollcall {

// Weights on their way from the learner to the workers: all parameters in parameter_shapes() order
// in the policy's dtype (float32, or bfloat16 rounded to nearest even), without gaps.
std::size_t published_bytes(const ModelSpec&, at::ScalarType dtype);

// Fills published_bytes() of memory.
void write_published(const ModelSpec&, at::ScalarType dtype, const TensorSource&,
                     std::span<std::byte> out);

// Gives views of published memory, which must stay as it is for as long.
TensorSource published_source(const ModelSpec&, at::ScalarType dtype,
                              std::span<const std::byte> bytes);

}  // namespace rollcall
