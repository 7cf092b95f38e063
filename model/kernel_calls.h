// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "model/cpu_kernels.h"
#include "model/ops.h"

namespace rollcall {

// What the operators share in calling cpu_kernels.h.

inline bool has_kernel(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

// The kernels of an element's type.
template <class Element>
struct Kernels;
template <>
struct Kernels<float> {
  static constexpr auto kLinear = &CpuKernels::linear;
  static constexpr auto kOuter = &CpuKernels::outer;
  static constexpr auto kPackColumns = &CpuKernels::pack_columns;
  static constexpr auto kPackOperandColumns = &CpuKernels::pack_columns;
  static constexpr auto kAttention = &CpuKernels::attention;
};
template <>
struct Kernels<BFloat16Pair> {
  static constexpr auto kLinear = &CpuKernels::linear_bfloat16;
  static constexpr auto kOuter = &CpuKernels::outer_bfloat16;
  static constexpr auto kPackColumns = &CpuKernels::pack_columns_bfloat16;
  static constexpr auto kPackOperandColumns = &CpuKernels::pack_pair_columns;
  static constexpr auto kAttention = &CpuKernels::attention_bfloat16;
};

// As autograd functions take an argument that may be missing.
inline std::optional<at::Tensor> defined(const at::Tensor& t) {
  return t.defined() ? std::optional(t) : std::nullopt;
}

// Calls body(Element{}) with the type that products of that dtype multiply.
template <class Body>
void with_element(at::ScalarType dtype, const Body& body) {
  dtype == at::kBFloat16 ? body(BFloat16Pair{}) : body(float{});
}

// Calls body(panels) with the panels as what they are, float or BFloat16Pair; null if the layer has
// a weight in their place.
template <class Body>
void visit_panels(const LinearWeight& w, const Body& body) {
  with_element(w.dtype, [&]<class Element>(Element) {
    body(static_cast<Element*>(w.packed.defined() ? w.packed.data_ptr() : nullptr));
  });
}

// Packs the outputs of one panel, `rows` [32, in] or what is left of them, where it belongs.
void pack_panel(const LinearWeight&, std::int64_t panel, const float* rows);

// The layer with panels: its own, or made of its weight, which it keeps beside them.
LinearWeight with_panels(const LinearWeight&);

// x [T, in] as the panels of the weight are multiplied with: x itself, or rounded to bfloat16
// [T, in, made even].
at::Tensor linear_inputs(const at::Tensor& x, const LinearWeight&);

// y = x @ W^T + bias, from the panels and linear_inputs() of them; y [T, out] contiguous.
void linear_into(const at::Tensor& inputs, const LinearWeight&, at::Tensor& y);

// dx = dy @ W, [T, out] -> [T, in], added to dx if that is defined; dy as linear_inputs() makes it
// of [T, out] float32.
void add_times_weight(const at::Tensor& dy, const LinearWeight&, at::Tensor& dx);

// Adds dy^T @ x to every dw [out, in] that is defined: x [T, in], and dy [T, out] of each, as
// linear_inputs() makes them.
void add_outer(const at::Tensor& x, const std::vector<at::Tensor>& dy, std::vector<at::Tensor>& dw);

// linear() of a weight with an adapter, with gradients for x and the adapter alone.
at::Tensor lora_linear(const at::Tensor& x, const LinearWeight&);

}  // namespace rollcall
