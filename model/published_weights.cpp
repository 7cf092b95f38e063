// SPDX-License-Identifier: Apache-2.0
#include "model/published_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <functional>
#include <numeric>
#include <vector>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr std::size_t kAlignment = 64;  // of a parameter: whole lines of the cache

using Shape = std::vector<std::int64_t>;

bool is_matrix(const Shape& shape) { return shape.size() == 2; }

Shape published_sizes(const Shape& shape, at::ScalarType dtype) {
  return is_matrix(shape) ? panel_sizes(shape[0], shape[1], dtype) : shape;
}

std::size_t aligned_bytes(const Shape& sizes, at::ScalarType dtype) {
  const auto elements =
      std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies{});
  const std::size_t bytes = static_cast<std::size_t>(elements) * c10::elementSize(dtype);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Calls body(name, shape, memory) for each parameter, with a view of what it has of `bytes`.
template <class Body>
void for_each_parameter(const ModelSpec& spec, at::ScalarType dtype,
                        std::span<const std::byte> bytes, const Body& body) {
  const std::size_t wanted = published_bytes(spec, dtype);
  if (bytes.size() != wanted)
    throw Error("published weights of " + std::to_string(bytes.size()) + " bytes, this model has " +
                std::to_string(wanted));
  // from_blob has no read-only form.
  auto* next = const_cast<std::byte*>(bytes.data());
  for (const auto& [name, shape] : parameter_shapes(spec)) {
    const Shape sizes = published_sizes(shape, dtype);
    body(name, shape, at::from_blob(next, sizes, dtype));
    next += aligned_bytes(sizes, dtype);
  }
}

}  // namespace

std::size_t published_bytes(const ModelSpec& spec, at::ScalarType dtype) {
  std::size_t bytes = 0;
  for (const auto& [name, shape] : parameter_shapes(spec))
    bytes += aligned_bytes(published_sizes(shape, dtype), dtype);
  return bytes;
}

void write_published(const ModelSpec& spec, at::ScalarType dtype, const TensorSource& source,
                     std::span<std::byte> out) {
  const at::NoGradGuard no_grad;
  const auto write = [&](const std::string& name, const Shape& shape, const at::Tensor& memory) {
    const at::Tensor values = source(name);
    if (!values.defined() || values.sizes() != at::IntArrayRef(shape))
      throw Error("no parameter '" + name + "' of the model's shape to publish");
    if (is_matrix(shape)) {
      pack_into(memory, values.to(at::kCPU));
    } else {
      memory.copy_(values);
    }
  };
  for_each_parameter(spec, dtype, out, write);
}

PublishedWeights::PublishedWeights(const ModelSpec& spec, at::ScalarType dtype,
                                   std::span<const std::byte> bytes)
    : dtype_(dtype) {
  const auto add = [&](const std::string& name, const Shape& shape, const at::Tensor& memory) {
    parameters_[name] = {memory, shape};
  };
  for_each_parameter(spec, dtype, bytes, add);
}

void PublishedWeights::use_matrix(LinearWeight& w, const std::string& name) const {
  const Parameter& matrix = parameters_.at(name);
  use_panels(w, matrix.memory, matrix.shape[1], matrix.shape[0]);
}

at::Tensor PublishedWeights::rows(const std::string& name) const {
  const auto found = parameters_.find(name);
  if (found == parameters_.end()) return {};
  const auto& [memory, shape] = found->second;
  return is_matrix(shape) ? unpacked(memory, shape[1], shape[0]) : memory;
}

TensorSource PublishedWeights::source() const {
  return [this](const std::string& name) { return rows(name); };
}

}  // namespace rollcall
