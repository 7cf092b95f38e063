// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>
#include <vector>

#include "comms/error.h"
#include "model/cpu_kernels.h"
#include "model/kernel_calls.h"
#include "model/ops.h"

namespace rollcall {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Calls body(panels) with the panels as what they are, float or BFloat16Pair; null if the layer has
// a weight in their place.
template <class Body>
void visit_panels(const LinearWeight& w, const Body& body) {
  void* data = w.packed.defined() ? w.packed.data_ptr() : nullptr;
  if (w.dtype == at::kBFloat16) {
    body(static_cast<BFloat16Pair*>(data));
  } else {
    body(static_cast<float*>(data));
  }
}

LinearWeight weight_of(const at::Tensor& panels, std::int64_t in, std::int64_t out) {
  return {.packed = panels, .in = in, .out = out, .dtype = panels.scalar_type()};
}

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

// Columns of `y` of these rows and panels.
struct Tile {
  std::int64_t first_row, last_row, first_panel, last_panel;
};

// `inputs` as linear_inputs() makes them.
void compute(const Tile& tile, const at::Tensor& inputs, const LinearWeight& w, at::Tensor& y) {
  visit_panels(w, [&](auto* packed) {
    using Element = std::remove_pointer_t<decltype(packed)>;
    const std::int64_t steps = panel_steps<Element>(w.in);
    (cpu_kernels().*Kernels<Element>::kLinear)(
        {.x = elements<Element>(inputs) + tile.first_row * steps,
         .ldx = steps,
         .rows = tile.last_row - tile.first_row,
         .packed = packed,
         .in = w.in,
         .out = w.out,
         .first_panel = tile.first_panel,
         .last_panel = tile.last_panel,
         .bias = w.bias.defined() ? w.bias.const_data_ptr<float>() : nullptr,
         .y = y.data_ptr<float>() + tile.first_row * w.out,
         .ldy = w.out});
  });
}

// Calls body(tile) for tiles that make all rows and `panels`, each of `flops` for a row.
template <class Body>
void parallel_tiles(std::int64_t rows, std::int64_t panels, std::int64_t flops, const Body& body) {
  if (rows >= panels) {
    parallel(rows, flops * panels, [&](std::int64_t begin, std::int64_t end) {
      body(Tile{begin, end, 0, panels});
    });
  } else {
    parallel(panels, flops * rows, [&](std::int64_t begin, std::int64_t end) {
      body(Tile{0, rows, begin, end});
    });
  }
}

constexpr std::int64_t panel_flops(std::int64_t in) { return 2 * kPanelWidth * in; }

// Outputs of a weight whose panels are transposed at a time: the panels of a product must stay in
// the second cache level with a block of its rows. Whole blocks of sums.
constexpr std::int64_t kTransposedOutputs = 1024;

// dx = dy @ W, or added to it; dy as linear_inputs() makes it. `transpose` writes panel p of the
// transposed weight's columns [first, last).
template <class Element, class Transpose>
void times_weight(const Element* dy, std::int64_t rows, std::int64_t in, std::int64_t out,
                  const Transpose& transpose, bool add, float* dx) {
  const std::int64_t panels = panel_count(in);
  const auto steps_of = [](std::int64_t outputs) { return panel_steps<Element>(outputs); };
  const at::Tensor memory =
      scratch<Element>(panels * kPanelWidth * steps_of(std::min(out, kTransposedOutputs)));
  auto* const transposed = static_cast<Element*>(memory.data_ptr());
  for (std::int64_t first = 0; first < out; first += kTransposedOutputs) {
    const std::int64_t last = std::min(out, first + kTransposedOutputs);
    const std::int64_t panel_size = kPanelWidth * steps_of(last - first);
    parallel(panels, 4 * panel_size, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        transpose(first, last, p, transposed + p * panel_size);
    });
    parallel_tiles(rows, panels, panel_flops(last - first), [&](const Tile& tile) {
      (cpu_kernels().*
       Kernels<Element>::kLinear)({.x = dy + tile.first_row * steps_of(out) + steps_of(first),
                                   .ldx = steps_of(out),
                                   .rows = tile.last_row - tile.first_row,
                                   .packed = transposed,
                                   .in = last - first,
                                   .out = in,
                                   .first_panel = tile.first_panel,
                                   .last_panel = tile.last_panel,
                                   .y = dx + tile.first_row * in,
                                   .ldy = in,
                                   .add = add || first > 0});
    });
  }
}

// Rows of a batch whose products are summed at a time: a panel of them stays in the first cache
// level, the panels of all inputs in the second. Whole blocks of sums.
constexpr std::int64_t kSummedRows = 512;

// Adds dy^T @ x to each dw [out, in] that is defined; x [rows, in] float32.
template <class Element>
void add_outer_of(const at::Tensor& x, const std::vector<at::Tensor>& dy,
                  std::vector<at::Tensor>& dw) {
  const CpuKernels& kernels = cpu_kernels();
  const auto pack_columns = kernels.*Kernels<Element>::kPackColumns;
  const std::int64_t rows = x.size(0), in = x.size(1), steps = panel_steps<Element>(rows);
  const at::Tensor memory = scratch<Element>(panel_count(in) * kPanelWidth * steps);
  auto* const inputs = static_cast<Element*>(memory.data_ptr());
  parallel(panel_count(in), 2 * kPanelWidth * rows, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = begin * kPanelWidth;
    pack_columns(x.const_data_ptr<float>() + first, in, rows,
                 std::min(in, end * kPanelWidth) - first, inputs + first * steps);
  });
  for (std::size_t i = 0; i < dw.size(); ++i) {
    if (!dw[i].defined()) continue;
    const std::int64_t out = dw[i].size(0);
    parallel(panel_count(out), panel_flops(in) * rows, [&](std::int64_t begin, std::int64_t end) {
      std::vector<Element> gradients(static_cast<std::size_t>(kPanelWidth * (steps + 1)));
      for (std::int64_t first = begin * kPanelWidth; first < std::min(out, end * kPanelWidth);
           first += kPanelWidth) {
        const std::int64_t count = std::min(kPanelWidth, out - first);
        pack_columns(dy[i].const_data_ptr<float>() + first, out, rows, count, gradients.data());
        (kernels.*Kernels<Element>::kOuter)({.a = gradients.data(),
                                             .b = inputs,
                                             .terms = rows,
                                             .rows = count,
                                             .columns = in,
                                             .y = dw[i].data_ptr<float>() + first * in,
                                             .ldy = in});
      }
    });
  }
}

at::Tensor outputs_of(const at::Tensor& x, const LinearWeight& w) {
  return at::empty({x.size(0), w.out}, x.options().dtype(at::kFloat));
}

// Up to three layers of one input, which is kept once for all of them.
struct LinearsFunction : torch::autograd::Function<LinearsFunction> {
  using Optional = std::optional<at::Tensor>;

  static variable_list forward(AutogradContext* context, const at::Tensor& x, const Optional& w0,
                               const Optional& b0, const Optional& w1, const Optional& b1,
                               const Optional& w2, const Optional& b2,
                               const std::vector<LinearWeight>& layers) {
    const std::array<bool, 3> trained{needs_gradient(w0), needs_gradient(w1), needs_gradient(w2)};
    const at::Tensor inputs = linear_inputs(x, layers[0]);
    variable_list saved{trained[0] || trained[1] || trained[2] ? inputs : at::Tensor()}, y;
    std::vector<std::int64_t> outs;
    for (const LinearWeight& layer : layers) {
      saved.push_back(layer.weight);
      saved.push_back(layer.packed);
      outs.push_back(layer.out);
      y.push_back(outputs_of(x, layer));
      linear_into(inputs, with_panels(layer), y.back());
    }
    context->set_materialize_grads(false);  // of outputs that nothing used
    context->save_for_backward(saved);
    context->saved_data["in"] = x.size(1);
    context->saved_data["dtype"] = static_cast<std::int64_t>(layers[0].dtype);
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
    variable_list of_arguments(8), dw(outs.size());
    for (std::size_t i = 0; i < outs.size(); ++i) {
      if (!grads[i].defined()) continue;
      grads[i] = grads[i].contiguous();
      const LinearWeight w{.weight = saved[1 + 2 * i],
                           .packed = saved[2 + 2 * i],
                           .in = in,
                           .out = outs[i],
                           .dtype = dtype};
      if (context->needs_input_grad(0)) add_times_weight(grads[i], w, of_arguments[0]);
      if (trained[i]) dw[i] = at::zeros({outs[i], in}, grads[i].options());
      if (bias[i]) of_arguments[2 + 2 * i] = grads[i].sum(0);
    }
    add_outer(saved[0], grads, dw);
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

at::Tensor rounded(const at::Tensor& values, at::ScalarType dtype) {
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

at::Tensor linear_inputs(const at::Tensor& x, const LinearWeight& w) {
  if (w.dtype != at::kBFloat16) return x;
  const std::int64_t rows = x.size(0), in = x.size(1), steps = panel_steps<BFloat16Pair>(in);
  at::Tensor pairs = at::empty({rows, 2 * steps}, at::kBFloat16);
  auto* const to = static_cast<BFloat16Pair*>(pairs.data_ptr());
  parallel(rows, 2 * in, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      cpu_kernels().round_inputs(x.const_data_ptr<float>() + r * in, in, to + r * steps);
  });
  return pairs;
}

void linear_into(const at::Tensor& inputs, const LinearWeight& w, at::Tensor& y) {
  parallel_tiles(inputs.size(0), panel_count(w.out), panel_flops(w.in),
                 [&](const Tile& tile) { compute(tile, inputs, w, y); });
}

void add_times_weight(const at::Tensor& dy, const LinearWeight& w, at::Tensor& dx) {
  const bool add = dx.defined();
  if (!add) dx = at::empty({dy.size(0), w.in}, dy.options());
  const at::Tensor inputs = linear_inputs(dy, w);
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
    times_weight(elements<Element>(inputs), dy.size(0), w.in, w.out, transpose, add,
                 dx.data_ptr<float>());
  });
}

void add_outer(const at::Tensor& inputs, const std::vector<at::Tensor>& dy,
               std::vector<at::Tensor>& dw) {
  const auto any = std::ranges::find_if(dw, &at::Tensor::defined);
  if (any == dw.end()) return;
  const std::int64_t rows = inputs.size(0), in = any->size(1);
  const bool pairs = inputs.scalar_type() == at::kBFloat16;
  for (std::int64_t first = 0; first < rows; first += kSummedRows) {
    const std::int64_t last = std::min(rows, first + kSummedRows);
    std::vector<at::Tensor> part;
    for (const at::Tensor& of_layer : dy)
      part.push_back(of_layer.defined() ? of_layer.slice(0, first, last) : of_layer);
    const at::Tensor x = inputs.slice(0, first, last).slice(1, 0, in).to(at::kFloat).contiguous();
    pairs ? add_outer_of<BFloat16Pair>(x, part, dw) : add_outer_of<float>(x, part, dw);
  }
}

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
      visit_panels(w, [&](auto* to) {
        using Element = std::remove_pointer_t<decltype(to)>;
        pack_weights(rows.const_data_ptr<float>(), last - first, w.in,
                     to + first * panel_steps<Element>(w.in));
      });
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
