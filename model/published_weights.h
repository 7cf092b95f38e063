// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/model_spec.h"
#include "model/ops.h"
#include "model/weights.h"

namespace rollcall {

// Weights on their way from the learner to the workers: all parameters in parameter_shapes() order
// in the policy's dtype (float32, or bfloat16 rounded to nearest even), a matrix as the panels that
// the kernels of every CPU read, each parameter from a multiple of 64 bytes on.
std::size_t published_bytes(const ModelSpec&, at::ScalarType dtype);

// Fills published_bytes() of memory that starts at a multiple of 64 bytes.
void write_published(const ModelSpec&, at::ScalarType dtype, const TensorSource&,
                     std::span<std::byte> out);

// Such memory, read where it lies. It is the caller's, and must stay as it is for as long as this
// or anything that uses its panels is used; this itself may go.
class PublishedWeights {
 public:
  // Throws Error if there are not published_bytes() of memory.
  PublishedWeights(const ModelSpec&, at::ScalarType dtype, std::span<const std::byte> bytes);

  at::ScalarType dtype() const { return dtype_; }
  // Computes from the panels of a matrix of the model.
  void use_matrix(LinearWeight&, const std::string& name) const;
  // The parameter row by row: a view of a vector, a float32 copy of a matrix; undefined if the
  // model has none of this name.
  at::Tensor rows(const std::string& name) const;
  TensorSource source() const;  // rows(); refers to this object

 private:
  struct Parameter {
    at::Tensor memory;  // panels, or the vector
    std::vector<std::int64_t> shape;
  };

  at::ScalarType dtype_;
  std::map<std::string, Parameter> parameters_;
};

}  // namespace rollcall
