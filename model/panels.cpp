// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/BFloat16.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <type_traits>

#include "comms/error.h"
#include "model/cpu_kernels.h"
#include "model/cpu_team.h"
#include "model/kernel_calls.h"
#include "model/ops.h"

namespace rollcall {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

LinearWeight weight_of(const at::Tensor& panels, std::int64_t in, std::int64_t out) {
  return {.packed = panels, .in = in, .out = out, .dtype = panels.scalar_type()};
}

void check_ids(const at::Tensor& ids, std::int64_t rows) {
  const auto* id = ids.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    if (id[i] < 0 || id[i] >= rows)
      throw Error("token id " + std::to_string(id[i]) + " is outside the embedding of " +
                  std::to_string(rows) + " rows");
  }
}

at::Tensor embedding_rows(const at::Tensor& ids, const LinearWeight& w) {
  const std::int64_t in = w.in;
  at::Tensor rows = at::empty({ids.numel(), in}, at::kFloat);
  const auto* id = ids.const_data_ptr<std::int64_t>();
  parallel(ids.numel(), 8 * kPanelWidth * in, [&](std::int64_t begin, std::int64_t end) {
    visit_panels(w, [&](const auto* panels) {
      for (std::int64_t i = begin; i < end; ++i)
        unpack_weights(panels, in, id[i], id[i] + 1, rows.data_ptr<float>() + i * in);
    });
  });
  return rows;
}

// To bfloat16, in one pass.
at::Tensor rounded(const at::Tensor& values) {
  at::Tensor result = at::empty_like(values);
  const auto* from = values.const_data_ptr<float>();
  auto* to = result.data_ptr<float>();
  parallel(values.numel(), 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) to[i] = c10::BFloat16(from[i]);
  });
  return result;
}

at::Tensor rounded(const at::Tensor& values, at::ScalarType dtype) {
  if (dtype == at::kBFloat16 && has_kernel(values) && values.is_contiguous())
    return rounded(values);
  return values.to(dtype).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
}

struct RoundFunction : torch::autograd::Function<RoundFunction> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& values, std::int64_t dtype) {
    return rounded(values, static_cast<at::ScalarType>(dtype));
  }
  static variable_list backward(AutogradContext*, variable_list grads) {
    return {grads[0], at::Tensor()};
  }
};

bool has_panels(const at::Tensor& values) {
  return values.is_cpu() && values.scalar_type() != at::kDouble;
}

}  // namespace

void pack(LinearWeight& w, const at::Tensor& values, at::ScalarType dtype) {
  w.out = values.size(0);
  w.in = values.size(1);
  if (values.requires_grad() || !has_panels(values)) {
    w.weight = values;
    w.packed = at::Tensor();
    w.owns_panels = false;
    w.dtype = dtype;
    return;
  }
  w.weight = at::Tensor();
  if (!w.owns_panels || w.dtype != dtype)
    w.packed = at::empty(panel_sizes(w.out, w.in, dtype), dtype);
  w.owns_panels = true;
  w.dtype = dtype;
  pack_into(w.packed, values);
}

void pack_panel(const LinearWeight& w, std::int64_t panel, const float* rows) {
  const std::int64_t first = panel * kPanelWidth;
  visit_panels(w, [&](auto* to) {
    using Element = std::remove_pointer_t<decltype(to)>;
    pack_weights(rows, std::min(kPanelWidth, w.out - first), w.in,
                 to + first * panel_steps<Element>(w.in));
  });
}

LinearWeight with_panels(const LinearWeight& w) {
  LinearWeight result = w;
  if (w.packed.defined()) return result;
  result.packed = at::empty(panel_sizes(w.out, w.in, w.dtype), w.dtype);
  pack_into(result.packed, w.weight);
  return result;
}

void use_panels(LinearWeight& w, const at::Tensor& panels, std::int64_t in, std::int64_t out) {
  w.in = in;
  w.out = out;
  w.weight = at::Tensor();
  w.packed = panels;
  w.owns_panels = false;
  w.dtype = panels.scalar_type();
}

std::vector<std::int64_t> panel_sizes(std::int64_t out, std::int64_t in, at::ScalarType dtype) {
  const std::int64_t inputs = dtype == at::kBFloat16 ? 2 * panel_steps<BFloat16Pair>(in) : in;
  return {panel_count(out), inputs, kPanelWidth};
}

void pack_into(const at::Tensor& panels, const at::Tensor& values) {
  const at::Tensor all = values.detach();
  const LinearWeight w = weight_of(panels, all.size(1), all.size(0));
  // Panel by panel: the whole weight as float32 would be the largest thing in memory.
  parallel(panel_count(w.out), 4 * kPanelWidth * w.in, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t first = p * kPanelWidth, last = std::min(w.out, first + kPanelWidth);
      const at::Tensor rows = all.slice(0, first, last).to(at::kFloat).contiguous();
      pack_panel(w, p, rows.const_data_ptr<float>());
    }
  });
}

at::Tensor unpacked(const at::Tensor& panels, std::int64_t in, std::int64_t out) {
  const LinearWeight w = weight_of(panels, in, out);
  at::Tensor rows = at::empty({out, in}, at::kFloat);
  parallel(panel_count(out), kPanelWidth * in, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * kPanelWidth;
    visit_panels(w, [&](const auto* from) {
      unpack_weights(from, in, first, std::min(out, end * kPanelWidth),
                     rows.data_ptr<float>() + first * in);
    });
  });
  return rows;
}

at::Tensor embedding(const at::Tensor& ids, const LinearWeight& w) {
  if (ids.is_cpu()) check_ids(ids, w.out);
  if (w.packed.defined()) return embedding_rows(ids, w);
  return policy_values(at::embedding(w.weight, ids), w.dtype);
}

at::Tensor policy_values(const at::Tensor& values, at::ScalarType dtype) {
  if (!has_panels(values)) return values;
  if (!values.requires_grad()) return rounded(values, dtype);
  return dtype == at::kFloat ? values
                             : RoundFunction::apply(values, static_cast<std::int64_t>(dtype));
}

}  // namespace rollcall
