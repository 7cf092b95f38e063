// SPDX-License-Identifier: Apache-2.0
#include "model/recompute.h"

#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace rollcall {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Body = std::function<at::Tensor(const at::Tensor&)>;

struct HeldBody : torch::CustomClassHolder {
  explicit HeldBody(Body run_in) : run(std::move(run_in)) {}
  Body run;
};

struct RecomputeFunction : torch::autograd::Function<RecomputeFunction> {
  // `gate` requires gradients, so that backward() is called even where `x` is frozen.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor&,
                            const c10::intrusive_ptr<HeldBody>& body) {
    context->save_for_backward({x});
    context->saved_data["body"] = at::IValue::make_capsule(body);
    return body->run(x);  // gradients are off in here
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor kept = context->get_saved_variables()[0];
    const auto body =
        c10::static_intrusive_pointer_cast<HeldBody>(context->saved_data["body"].toCapsule());
    const at::AutoGradMode with_gradients(true);
    const at::Tensor x = kept.detach().set_requires_grad(kept.requires_grad());
    const at::Tensor y = body->run(x);
    if (y.requires_grad()) torch::autograd::backward({y}, grads);
    return {x.grad(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor recomputed(Body body, const at::Tensor& x) {
  const at::Tensor gate = at::empty({0}, x.options().requires_grad(false)).set_requires_grad(true);
  return RecomputeFunction::apply(x, gate, c10::make_intrusive<HeldBody>(std::move(body)));
}

}  // namespace rollcall
