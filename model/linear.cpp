// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include "model/cpu_kernels.h"
#include "model/cpu_team.h"
#include "model/cpu_tiles.h"
#include "model/kernel_calls.h"
#include "model/ops.h"

namespace rollcall {
namespace {

using Member = CpuTeam::Member;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <class Element>
const Element* elements(const at::Tensor& values) {
  return static_cast<const Element*>(values.const_data_ptr());
}

// Memory of `count` elements, as a tensor: its allocator keeps what was freed.
template <class Element>
at::Tensor scratch(std::int64_t count) {
  static_assert(sizeof(Element) == sizeof(float));
  return at::empty({count}, at::kFloat);
}

bool needs_gradient(const std::optional<at::Tensor>& weight) {
  return weight.has_value() && weight->requires_grad();
}

constexpr std::int64_t product_flops(std::int64_t rows, std::int64_t in, std::int64_t out) {
  return 2 * rows * in * out;
}

// x, or memory for its rows rounded.
at::Tensor inputs_for(const at::Tensor& x, at::ScalarType dtype) {
  if (dtype != at::kBFloat16) return x;
  return at::empty({x.size(0), 2 * panel_steps<BFloat16Pair>(x.size(1))}, at::kBFloat16);
}

// Rows rounded at a time.
constexpr std::int64_t kRoundedRows = 32;

void round_part(const at::Tensor& x, std::int64_t part, at::Tensor& inputs) {
  const std::int64_t in = x.size(1), steps = panel_steps<BFloat16Pair>(in);
  const Part rows = nth_part(part, kRoundedRows, x.size(0));
  auto* const to = static_cast<BFloat16Pair*>(inputs.data_ptr());
  for (std::int64_t r = rows.first; r < rows.last; ++r)
    cpu_kernels().round_inputs(x.const_data_ptr<float>() + r * in, in, to + r * steps);
}

constexpr std::int64_t kPackFlops = 16;  // what packing a number takes, in products

// y = x @ W^T + bias of each layer; those without panels are given memory for them. `inputs` is
// inputs_for(x), and becomes what the panels are multiplied with.
template <class Element>
void layers_into(const at::Tensor& x, std::vector<LinearWeight>& layers, at::Tensor& inputs,
                 variable_list& y) {
  const std::int64_t rows = x.size(0);
  std::vector<LinearCall<Element>> products;
  std::vector<at::Tensor> weights;  // to be packed, or undefined
  std::int64_t flops = 0, panels = 0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    LinearWeight& layer = layers[i];
    at::Tensor& weight = weights.emplace_back();
    if (!layer.packed.defined()) {
      weight = layer.weight.detach().contiguous();
      layer.packed = at::empty(panel_sizes(layer.out, layer.in, layer.dtype), layer.dtype);
      panels += panel_count(layer.out);
      flops += kPackFlops * layer.in * layer.out;
    }
    flops += product_flops(rows, layer.in, layer.out);
    products.push_back(product_of(elements<Element>(inputs), rows, layer, y[i].data_ptr<float>()));
  }
  const std::int64_t rounded = inputs.is_same(x) ? 0 : parts(rows, kRoundedRows);
  CpuTeam().run(flops, [&](Member& member) {
    member.share(panels + rounded, [&](std::int64_t item) {
      if (item >= panels) return round_part(x, item - panels, inputs);
      for (std::size_t i = 0; i < layers.size(); ++i) {
        if (!weights[i].defined()) continue;
        const std::int64_t count = panel_count(layers[i].out);
        if (item < count)
          return pack_panel(layers[i], item,
                            weights[i].const_data_ptr<float>() + item * kPanelWidth * layers[i].in);
        item -= count;
      }
    });
    share_products<Element>(member, products);
  });
}

// Outputs of a weight whose panels are transposed at a time: the panels of a product must stay in
// the second cache level with a block of its rows. Whole blocks of sums.
constexpr std::int64_t kTransposedOutputs = 1024;

// dx = dy @ W, or added to it. `transpose` writes panel p of the transposed weight's columns
// [first, last).
template <class Element, class Transpose>
void times_weight(const Element* dy, std::int64_t rows, std::int64_t in, std::int64_t out,
                  const Transpose& transpose, bool add, float* dx) {
  const std::int64_t panels = panel_count(in);
  const auto steps_of = [](std::int64_t outputs) { return panel_steps<Element>(outputs); };
  const at::Tensor memory =
      scratch<Element>(panels * kPanelWidth * steps_of(std::min(out, kTransposedOutputs)));
  auto* const transposed = static_cast<Element*>(memory.data_ptr());
  CpuTeam().run(product_flops(rows, in, out), [&](Member& member) {
    for (std::int64_t first = 0; first < out; first += kTransposedOutputs) {
      const std::int64_t last = std::min(out, first + kTransposedOutputs);
      const std::int64_t panel_size = kPanelWidth * steps_of(last - first);
      member.share(panels,
                   [&](std::int64_t p) { transpose(first, last, p, transposed + p * panel_size); });
      const LinearCall<Element> product{.x = dy + steps_of(first),
                                        .ldx = steps_of(out),
                                        .rows = rows,
                                        .packed = transposed,
                                        .in = last - first,
                                        .out = in,
                                        .y = dx,
                                        .ldy = in,
                                        .add = add || first > 0};
      share_products<Element>(member, {&product, 1});
    }
  });
}

// Rows of a batch whose products are summed at a time: a panel of them stays in the first cache
// level, the panels of all inputs in the second. Whole blocks of sums.
constexpr std::int64_t kSummedRows = 512;

// The gradient of a layer's weight.
template <class Element>
struct Outer {
  const Element* dy;
  std::int64_t out;
  float* dw;
};

template <class Element>
void add_outers(const Element* x, std::int64_t rows, std::int64_t in,
                const std::vector<Outer<Element>>& outers) {
  const CpuKernels& kernels = cpu_kernels();
  const auto pack_columns = kernels.*Kernels<Element>::kPackOperandColumns;
  const std::int64_t x_steps = panel_steps<Element>(in), x_panels = panel_count(in);
  const std::int64_t most_steps = panel_steps<Element>(std::min(rows, kSummedRows));
  const at::Tensor memory = scratch<Element>(x_panels * kPanelWidth * most_steps);
  auto* const inputs = static_cast<Element*>(memory.data_ptr());
  const std::int64_t gradient_size = kPanelWidth * (most_steps + 1);  // of a panel
  const at::Tensor of_threads = scratch<Element>(CpuTeam::most_threads() * gradient_size);
  std::int64_t panels = 0, flops = 0;
  for (const auto& o : outers) {
    panels += panel_count(o.out);
    flops += product_flops(rows, in, o.out);
  }
  CpuTeam().run(flops, [&](Member& member) {
    auto* const gradients =
        static_cast<Element*>(of_threads.data_ptr()) + member.index() * gradient_size;
    for (std::int64_t first = 0; first < rows; first += kSummedRows) {
      const std::int64_t terms = std::min(kSummedRows, rows - first);
      const std::int64_t panel_size = kPanelWidth * panel_steps<Element>(terms);
      member.share(x_panels, [&](std::int64_t p) {
        const std::int64_t column = p * kPanelWidth;
        pack_columns(x + first * x_steps + column / kInputsAStep<Element>, x_steps, terms,
                     std::min(kPanelWidth, in - column), inputs + p * panel_size);
      });
      member.share(panels, [&](std::int64_t item) {
        auto o = outers.begin();
        for (; item >= panel_count(o->out); ++o) item -= panel_count(o->out);
        const std::int64_t column = item * kPanelWidth, dy_steps = panel_steps<Element>(o->out);
        const std::int64_t count = std::min(kPanelWidth, o->out - column);
        pack_columns(o->dy + first * dy_steps + column / kInputsAStep<Element>, dy_steps, terms,
                     count, gradients);
        (kernels.*Kernels<Element>::kOuter)({.a = gradients,
                                             .b = inputs,
                                             .terms = terms,
                                             .rows = count,
                                             .columns = in,
                                             .y = o->dw + column * in,
                                             .ldy = in});
      });
    }
  });
}

// Up to three layers of one input, which is kept once for all of them.
struct LinearsFunction : torch::autograd::Function<LinearsFunction> {
  using Optional = std::optional<at::Tensor>;

  static variable_list forward(AutogradContext* context, const at::Tensor& x, const Optional& w0,
                               const Optional& b0, const Optional& w1, const Optional& b1,
                               const Optional& w2, const Optional& b2,
                               std::vector<LinearWeight> layers) {
    const std::array<bool, 3> trained{needs_gradient(w0), needs_gradient(w1), needs_gradient(w2)};
    const at::ScalarType dtype = layers[0].dtype;
    at::Tensor inputs = inputs_for(x, dtype);
    variable_list saved{trained[0] || trained[1] || trained[2] ? inputs : at::Tensor()}, y;
    std::vector<std::int64_t> outs;
    for (const LinearWeight& layer : layers) {
      saved.push_back(layer.weight);
      saved.push_back(layer.packed);
      outs.push_back(layer.out);
      y.push_back(at::empty({x.size(0), layer.out}, x.options()));
    }
    with_element(dtype,
                 [&]<class Element>(Element) { layers_into<Element>(x, layers, inputs, y); });
    context->set_materialize_grads(false);  // of outputs that nothing used
    context->save_for_backward(saved);
    context->saved_data["in"] = x.size(1);
    context->saved_data["dtype"] = static_cast<std::int64_t>(dtype);
    context->saved_data["outs"] = outs;
    context->saved_data["trained"] = std::vector<bool>(trained.begin(), trained.end());
    context->saved_data["bias"] = std::vector<bool>{b0.has_value(), b1.has_value(), b2.has_value()};
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const auto outs = context->saved_data["outs"].toIntVector();
    const auto trained = context->saved_data["trained"].toBoolList();
    const auto bias = context->saved_data["bias"].toBoolList();
    const std::int64_t in = context->saved_data["in"].toInt();
    const auto dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt());
    variable_list of_arguments(8), dw(outs.size()), dy(outs.size());
    for (std::size_t i = 0; i < outs.size(); ++i) {
      if (!grads[i].defined()) continue;
      const LinearWeight w{.weight = saved[1 + 2 * i],
                           .packed = saved[2 + 2 * i],
                           .in = in,
                           .out = outs[i],
                           .dtype = dtype};
      dy[i] = linear_inputs(grads[i].contiguous(), w);
      if (context->needs_input_grad(0)) add_times_weight(dy[i], w, of_arguments[0]);
      if (trained[i]) dw[i] = at::zeros({outs[i], in}, grads[i].options());
      if (bias[i]) of_arguments[2 + 2 * i] = grads[i].sum(0);
    }
    add_outer(saved[0], dy, dw);
    for (std::size_t i = 0; i < dw.size(); ++i) of_arguments[1 + 2 * i] = dw[i];
    return of_arguments;
  }
};

// Together where one function can give all their gradients.
std::vector<at::Tensor> linears_of(const at::Tensor& x, std::vector<const LinearWeight*> weights) {
  std::vector<LinearWeight> layers;
  std::vector<at::Tensor> y;
  bool together = has_kernel(x);
  for (const LinearWeight* w : weights) {
    layers.push_back(*w);
    together = together && !(w->lora.a.defined() && at::GradMode::is_enabled());
  }
  if (!together) {
    for (const LinearWeight& w : layers) y.push_back(linear(x, w));
    return y;
  }
  const auto weight = [&](std::size_t i) {
    return i < layers.size() ? defined(layers[i].weight) : std::nullopt;
  };
  const auto bias = [&](std::size_t i) {
    return i < layers.size() ? defined(layers[i].bias) : std::nullopt;
  };
  return LinearsFunction::apply(x, weight(0), bias(0), weight(1), bias(1), weight(2), bias(2),
                                layers);
}

}  // namespace

at::Tensor linear_inputs(const at::Tensor& x, const LinearWeight& w) {
  at::Tensor inputs = inputs_for(x, w.dtype);
  if (inputs.is_same(x)) return inputs;
  const std::int64_t items = parts(x.size(0), kRoundedRows);
  CpuTeam().run(2 * x.numel(), [&](Member& member) {
    member.share(items, [&](std::int64_t part) { round_part(x, part, inputs); });
  });
  return inputs;
}

void linear_into(const at::Tensor& inputs, const LinearWeight& w, at::Tensor& y) {
  with_element(w.dtype, [&]<class Element>(Element) {
    const auto product =
        product_of(elements<Element>(inputs), inputs.size(0), w, y.data_ptr<float>());
    CpuTeam().run(product_flops(inputs.size(0), w.in, w.out), [&](Member& member) {
      share_products<Element>(member, {&product, 1});
    });
  });
}

void add_times_weight(const at::Tensor& dy, const LinearWeight& w, at::Tensor& dx) {
  const bool add = dx.defined();
  if (!add) dx = at::empty({dy.size(0), w.in}, at::kFloat);
  visit_panels(w, [&](auto* packed) {
    using Element = std::remove_pointer_t<decltype(packed)>;
    const at::Tensor values =
        w.weight.defined() ? w.weight.detach().to(at::kFloat).contiguous() : at::Tensor();
    const auto transpose = [&](std::int64_t first, std::int64_t last, std::int64_t p, Element* to) {
      if (!values.defined()) return transpose_panel(packed, w.in, first, last, p, to);
      const std::int64_t column = p * kPanelWidth;
      (cpu_kernels().*Kernels<Element>::kPackColumns)(
          values.const_data_ptr<float>() + first * w.in + column, w.in, last - first,
          std::min(kPanelWidth, w.in - column), to);
    };
    times_weight(elements<Element>(dy), dy.size(0), w.in, w.out, transpose, add,
                 dx.data_ptr<float>());
  });
}

void add_outer(const at::Tensor& x, const std::vector<at::Tensor>& dy,
               std::vector<at::Tensor>& dw) {
  const auto any = std::ranges::find_if(dw, &at::Tensor::defined);
  if (any == dw.end()) return;
  with_element(x.scalar_type(), [&]<class Element>(Element) {
    std::vector<Outer<Element>> outers;
    for (std::size_t i = 0; i < dw.size(); ++i) {
      if (dw[i].defined())
        outers.push_back({elements<Element>(dy[i]), dw[i].size(0), dw[i].data_ptr<float>()});
    }
    add_outers(elements<Element>(x), x.size(0), any->size(1), outers);
  });
}

at::Tensor linear(const at::Tensor& x, const LinearWeight& w) {
  if (w.lora.a.defined() && at::GradMode::is_enabled()) return lora_linear(x, w);
  if (!has_kernel(x)) return at::linear(x, w.weight, w.bias);
  return linears_of(x, {&w})[0];
}

std::array<at::Tensor, 2> linears(const at::Tensor& x, const LinearWeight& a,
                                  const LinearWeight& b) {
  const auto y = linears_of(x, {&a, &b});
  return {y[0], y[1]};
}

std::array<at::Tensor, 3> linears(const at::Tensor& x, const LinearWeight& a, const LinearWeight& b,
                                  const LinearWeight& c) {
  const auto y = linears_of(x, {&a, &b, &c});
  return {y[0], y[1], y[2]};
}

}  // namespace rollcall
