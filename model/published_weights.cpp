// SPDX-License-Identifier: Apache-2.0
#include "model/published_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include "comms/error.h"

namespace rollcall {
namespace {

// A view of every parameter in memory of the published layout.
NamedTensors views(const ModelSpec& spec, at::ScalarType dtype, std::byte* bytes) {
  NamedTensors tensors;
  for (const auto& [name, shape] : parameter_shapes(spec)) {
    const auto& view = tensors[name] = at::from_blob(bytes, shape, dtype);
    bytes += view.nbytes();
  }
  return tensors;
}

void check_size(const ModelSpec& spec, at::ScalarType dtype, std::size_t bytes) {
  const std::size_t wanted = published_bytes(spec, dtype);
  if (bytes == wanted) return;
  throw Error("published weights of " + std::to_string(bytes) + " bytes, this model has " +
              std::to_string(wanted));
}

}  // namespace

std::size_t published_bytes(const ModelSpec& spec, at::ScalarType dtype) {
  return static_cast<std::size_t>(parameter_count(spec)) * c10::elementSize(dtype);
}

void write_published(const ModelSpec& spec, at::ScalarType dtype, const TensorSource& source,
                     std::span<std::byte> out) {
  check_size(spec, dtype, out.size());
  const at::NoGradGuard no_grad;
  for (const auto& [name, view] : views(spec, dtype, out.data())) view.copy_(source(name));
}

TensorSource published_source(const ModelSpec& spec, at::ScalarType dtype,
                              std::span<const std::byte> bytes) {
  check_size(spec, dtype, bytes.size());
  // The views are only read from; from_blob has no read-only form.
  return [tensors =
              views(spec, dtype, const_cast<std::byte*>(bytes.data()))](const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? at::Tensor() : found->second;
  };
}

}  // namespace rollcall
