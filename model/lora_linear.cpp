// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/kernel_calls.h"
#include "model/ops.h"

namespace rollcall {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// y = x @ W'^T + bias with W' = W + s B A merged beforehand: W' is what is computed with, A and B
// are what is trained.
struct LoraLinearFunction : torch::autograd::Function<LoraLinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& a,
                            const at::Tensor& b, double scaling, const LinearWeight& merged) {
    context->save_for_backward({x, a, b, merged.weight, merged.packed});
    context->saved_data["scaling"] = scaling;
    context->saved_data["in"] = merged.in;
    context->saved_data["out"] = merged.out;
    context->saved_data["dtype"] = static_cast<std::int64_t>(merged.dtype);
    return linear(x, merged);  // gradients are off in here
  }

  // With dW' = dy^T x: dB = s dW' A^T and dA = s B^T dW', never forming dW'.
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &a = saved[1], &b = saved[2];
    const double scaling = context->saved_data["scaling"].toDouble();
    const LinearWeight merged{
        .weight = saved[3],
        .packed = saved[4],
        .in = context->saved_data["in"].toInt(),
        .out = context->saved_data["out"].toInt(),
        .dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt())};
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx;
    if (context->needs_input_grad(0))
      has_kernel(dy) ? add_times_weight(linear_inputs(dy, merged), merged, dx)
                     : void(dx = at::mm(dy, merged.weight));
    const at::Tensor da = at::mm(at::mm(dy, b).t(), x).mul_(scaling);
    const at::Tensor db = at::mm(dy.t(), at::mm(x, a.t())).mul_(scaling);
    return {dx, da, db, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor lora_linear(const at::Tensor& x, const LinearWeight& w) {
  LinearWeight merged = w;
  merged.lora = {};
  if (merged.weight.defined()) merged.weight = merged.weight.detach();
  return LoraLinearFunction::apply(x, w.lora.a, w.lora.b, w.lora.scaling, merged);
}

}  // namespace rollcall
