// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/cpu_kernels.h"
#include "model/kernel_calls.h"
#include "model/ops.h"

namespace rollcall {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kUnpackedFloats = 1 << 24;  // of a weight, alive at once in the backward

// Outputs [first, last) of the weight in rows: [last - first, in]; `first` begins a panel.
at::Tensor unpacked_rows(const LinearWeight& w, std::int64_t first, std::int64_t last) {
  const std::int64_t in = w.packed.size(1);
  at::Tensor rows = at::empty({last - first, in}, at::kFloat);
  const float* panels = w.packed.const_data_ptr<float>() + first * in;
  parallel(panel_count(last - first), kPanelWidth * in, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t row = begin * kPanelWidth;
    unpack_weights(panels + row * in, std::min(last - first, end * kPanelWidth) - row, in,
                   rows.data_ptr<float>() + row * in);
  });
  return rows;
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, const at::Tensor& packed,
                            std::int64_t out) {
    const bool trained = weight.has_value() && weight->requires_grad();
    context->save_for_backward({trained ? x : at::Tensor(), packed});
    context->saved_data["trained"] = trained;
    context->saved_data["bias"] = bias.has_value();
    context->saved_data["out"] = out;
    at::Tensor y = at::empty({x.size(0), out}, x.options());
    linear_into(x, {{}, bias.value_or(at::Tensor()), packed, out}, y);
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const LinearWeight w{{}, {}, saved[1], context->saved_data["out"].toInt()};
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx, dw, db;
    if (context->needs_input_grad(0)) dx = times_weight(dy, w);
    if (context->saved_data["trained"].toBool()) dw = at::mm(dy.t(), saved[0]);
    if (context->saved_data["bias"].toBool()) db = dy.sum(0);
    return {dx, dw, db, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

void linear_into(const at::Tensor& x, const LinearWeight& w, at::Tensor& y) {
  const std::int64_t rows = x.size(0), in = x.size(1), out = w.out;
  const float* bias = w.bias.defined() ? w.bias.const_data_ptr<float>() : nullptr;
  const float* from = x.const_data_ptr<float>();
  const float* packed = w.packed.const_data_ptr<float>();
  float* to = y.data_ptr<float>();
  const auto& kernel = cpu_kernels();
  const std::int64_t panels = panel_count(out);
  if (rows >= panels) {
    parallel(rows, 2 * in * out, [&](std::int64_t begin, std::int64_t end) {
      kernel.linear(from + begin * in, in, end - begin, packed, in, out, 0, panels, bias,
                    to + begin * out, out);
    });
  } else {
    parallel(panels, 2 * in * kPanelWidth * rows, [&](std::int64_t begin, std::int64_t end) {
      kernel.linear(from, in, rows, packed, in, out, begin, end, bias, to, out);
    });
  }
}

at::Tensor times_weight(const at::Tensor& dy, const LinearWeight& w) {
  const std::int64_t in = w.packed.size(1);
  const std::int64_t step =
      std::max<std::int64_t>(1, kUnpackedFloats / (in * kPanelWidth)) * kPanelWidth;
  at::Tensor dx;
  for (std::int64_t first = 0; first < w.out; first += step) {
    const std::int64_t last = std::min(w.out, first + step);
    const at::Tensor part = dy.slice(1, first, last), rows = unpacked_rows(w, first, last);
    dx.defined() ? dx.addmm_(part, rows) : dx = at::mm(part, rows);
  }
  return dx;
}

void pack(LinearWeight& w, const at::Tensor& values) {
  w.out = values.size(0);
  w.weight = values.requires_grad() || !has_kernel(values) ? values : at::Tensor();
  if (!has_kernel(values)) return;
  const at::NoGradGuard no_grad;
  const at::Tensor weight = values.contiguous();
  const std::int64_t in = weight.size(1);
  if (!w.packed.defined()) w.packed = at::empty({panel_count(w.out), in, kPanelWidth}, at::kFloat);
  pack_weights(weight.const_data_ptr<float>(), w.out, in, w.packed.data_ptr<float>());
}

at::Tensor linear(const at::Tensor& x, const LinearWeight& w) {
  if (w.lora.a.defined() && at::GradMode::is_enabled()) return lora_linear(x, w);
  if (!has_kernel(x)) return at::linear(x, w.weight, w.bias);
  if (at::GradMode::is_enabled())
    return LinearFunction::apply(x, defined(w.weight), defined(w.bias), w.packed, w.out);
  at::Tensor y = at::empty({x.size(0), w.out}, x.options());
  linear_into(x, w, y);
  return y;
}

}  // namespace rollcall
