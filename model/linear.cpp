// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/embedding_dense_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "comms/error.h"
#include "model/cpu_kernels.h"
#include "model/kernel_calls.h"
#include "model/ops.h"

namespace rollcall {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kUnpackedFloats = 1 << 22;  // of a weight, at a time

// Calls body(panels) with the panels as what they are: float or BFloat16Pair.
template <class Body>
void with_panels(const LinearWeight& w, const Body& body) {
  void* data = w.packed.data_ptr();
  if (w.packed.scalar_type() == at::kBFloat16) {
    body(static_cast<BFloat16Pair*>(data));
  } else {
    body(static_cast<float*>(data));
  }
}

auto kernel_of(const CpuKernels& kernels, const float*) { return kernels.linear; }
auto kernel_of(const CpuKernels& kernels, const BFloat16Pair*) { return kernels.linear_bfloat16; }

// Outputs [first, last) of the weight: [last - first, in]; `first` begins a panel.
at::Tensor unpacked_rows(const LinearWeight& w, std::int64_t first, std::int64_t last) {
  const std::int64_t in = w.packed.size(1);
  at::Tensor rows = at::empty({last - first, in}, at::kFloat);
  parallel(panel_count(last - first), kPanelWidth * in, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t from = first + begin * kPanelWidth;
    with_panels(w, [&](const auto* panels) {
      unpack_weights(panels, in, from, std::min(last, first + end * kPanelWidth),
                     rows.data_ptr<float>() + (from - first) * in);
    });
  });
  return rows;
}

bool needs_gradient(const std::optional<at::Tensor>& weight) {
  return weight.has_value() && weight->requires_grad();
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& weight,
                            const std::optional<at::Tensor>& bias, const at::Tensor& packed,
                            std::int64_t out) {
    const bool trained = needs_gradient(weight);
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

at::Tensor embedding_rows(const at::Tensor& ids, const LinearWeight& w) {
  const std::int64_t in = w.packed.size(1);
  at::Tensor rows = at::empty({ids.numel(), in}, at::kFloat);
  const auto* id = ids.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    if (id[i] < 0 || id[i] >= w.out)
      throw Error("token id " + std::to_string(id[i]) + " is outside the embedding of " +
                  std::to_string(w.out) + " rows");
  }
  parallel(ids.numel(), 8 * kPanelWidth * in, [&](std::int64_t begin, std::int64_t end) {
    with_panels(w, [&](const auto* panels) {
      for (std::int64_t i = begin; i < end; ++i)
        unpack_weights(panels, in, id[i], id[i] + 1, rows.data_ptr<float>() + i * in);
    });
  });
  return rows;
}

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight,
                            const at::Tensor& ids, const at::Tensor& packed) {
    context->save_for_backward({ids});
    context->saved_data["out"] = weight.size(0);
    return embedding_rows(ids, {{}, {}, packed, weight.size(0)});
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    return {at::embedding_dense_backward(grads[0].contiguous(), context->get_saved_variables()[0],
                                         context->saved_data["out"].toInt(), /*padding_idx=*/-1,
                                         /*scale_grad_by_freq=*/false),
            at::Tensor(), at::Tensor()};
  }
};

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

// Columns of `y` from x, of these rows and panels.
struct Tile {
  std::int64_t first_row, last_row, first_panel, last_panel;
};

void compute(const Tile& tile, const at::Tensor& x, const LinearWeight& w, at::Tensor& y) {
  const std::int64_t in = x.size(1);
  const float* bias = w.bias.defined() ? w.bias.const_data_ptr<float>() : nullptr;
  with_panels(w, [&](const auto* packed) {
    kernel_of(cpu_kernels(), packed)(x.const_data_ptr<float>() + tile.first_row * in, in,
                                     tile.last_row - tile.first_row, packed, in, w.out,
                                     tile.first_panel, tile.last_panel, bias,
                                     y.data_ptr<float>() + tile.first_row * w.out, w.out);
  });
}

// Calls body(tile) for tiles that make all rows and `panels`, each of `flops` for an input and row.
template <class Body>
void parallel_tiles(const at::Tensor& x, std::int64_t panels, std::int64_t flops,
                    const Body& body) {
  const std::int64_t rows = x.size(0), cost = flops * x.size(1);
  if (rows >= panels) {
    parallel(rows, cost * panels, [&](std::int64_t begin, std::int64_t end) {
      body(Tile{begin, end, 0, panels});
    });
  } else {
    parallel(panels, cost * rows, [&](std::int64_t begin, std::int64_t end) {
      body(Tile{0, rows, begin, end});
    });
  }
}

constexpr std::int64_t kPanelFlops = 2 * kPanelWidth;

at::Tensor outputs_of(const at::Tensor& x, const LinearWeight& w) {
  return at::empty({x.size(0), w.out}, x.options());
}

}  // namespace

void linear_into(const at::Tensor& x, const LinearWeight& w, at::Tensor& y) {
  parallel_tiles(x, panel_count(w.out), kPanelFlops,
                 [&](const Tile& tile) { compute(tile, x, w, y); });
}

at::Tensor times_weight(const at::Tensor& dy, const LinearWeight& w) {
  const std::int64_t panel_floats = std::max<std::int64_t>(1, w.packed.size(1)) * kPanelWidth;
  const std::int64_t step = std::max<std::int64_t>(1, kUnpackedFloats / panel_floats) * kPanelWidth;
  at::Tensor dx;
  for (std::int64_t first = 0; first < w.out; first += step) {
    const std::int64_t last = std::min(w.out, first + step);
    const at::Tensor part = dy.slice(1, first, last), rows = unpacked_rows(w, first, last);
    dx.defined() ? dx.addmm_(part, rows) : dx = at::mm(part, rows);
  }
  return dx;
}

void pack(LinearWeight& w, const at::Tensor& values, at::ScalarType dtype) {
  w.out = values.size(0);
  w.weight = values.requires_grad() || !has_panels(values) ? values : at::Tensor();
  if (!has_panels(values)) return;
  const at::Tensor all = values.detach();
  const std::int64_t in = all.size(1);
  if (!w.packed.defined() || w.packed.scalar_type() != dtype)
    w.packed = at::empty({panel_count(w.out), in, kPanelWidth}, dtype);
  // Panel by panel: the whole weight as float32 would be the largest thing in memory.
  parallel(panel_count(w.out), 4 * kPanelWidth * in, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t first = p * kPanelWidth, last = std::min(w.out, first + kPanelWidth);
      const at::Tensor rows = all.slice(0, first, last).to(at::kFloat).contiguous();
      with_panels(w, [&](auto* panels) {
        using Weight = std::remove_pointer_t<decltype(panels)>;
        pack_weights(rows.const_data_ptr<float>(), last - first, in,
                     panels + p * kPanelRow<Weight> * in);
      });
    }
  });
}

at::Tensor linear(const at::Tensor& x, const LinearWeight& w) {
  if (w.lora.a.defined() && at::GradMode::is_enabled()) return lora_linear(x, w);
  if (!has_kernel(x)) return at::linear(x, w.weight, w.bias);
  if (at::GradMode::is_enabled())
    return LinearFunction::apply(x, defined(w.weight), defined(w.bias), w.packed, w.out);
  at::Tensor y = outputs_of(x, w);
  linear_into(x, w, y);
  return y;
}

std::array<at::Tensor, 3> linears(const at::Tensor& x, const LinearWeight& a, const LinearWeight& b,
                                  const LinearWeight& c) {
  if (!has_kernel(x) || at::GradMode::is_enabled())
    return {linear(x, a), linear(x, b), linear(x, c)};
  const std::array<const LinearWeight*, 3> layers{&a, &b, &c};
  std::array<at::Tensor, 3> y{outputs_of(x, a), outputs_of(x, b), outputs_of(x, c)};
  std::int64_t panels = 0;
  for (const LinearWeight* w : layers) panels += panel_count(w->out);
  parallel_tiles(x, panels, kPanelFlops, [&](const Tile& tile) {
    Tile part = tile;  // panels of one layer
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::int64_t count = panel_count(layers[i]->out);
      Tile own = part;
      own.first_panel = std::max<std::int64_t>(0, part.first_panel);
      own.last_panel = std::min(count, part.last_panel);
      if (own.first_panel < own.last_panel) compute(own, x, *layers[i], y[i]);
      part.first_panel -= count;
      part.last_panel -= count;
    }
  });
  return y;
}

at::Tensor gated(const at::Tensor& x, const LinearWeight& gate, const LinearWeight& up) {
  if (!has_kernel(x) || at::GradMode::is_enabled()) return silu_mul(linear(x, gate), linear(x, up));
  at::Tensor g = outputs_of(x, gate), u = outputs_of(x, up), y = outputs_of(x, gate);
  parallel_tiles(x, panel_count(gate.out), 2 * kPanelFlops, [&](const Tile& tile) {
    compute(tile, x, gate, g);
    compute(tile, x, up, u);
    // Whole panels but at the end of a row: lanes do not depend on the tile.
    const std::int64_t column = tile.first_panel * kPanelWidth;
    const std::int64_t columns = std::min(gate.out, tile.last_panel * kPanelWidth) - column;
    for (std::int64_t r = tile.first_row; r < tile.last_row; ++r) {
      const std::int64_t at = r * gate.out + column;
      cpu_kernels().silu_mul(g.const_data_ptr<float>() + at, u.const_data_ptr<float>() + at,
                             columns, y.data_ptr<float>() + at);
    }
  });
  return y;
}

at::Tensor embedding(const at::Tensor& ids, const LinearWeight& w) {
  if (!w.packed.defined()) return at::embedding(w.weight, ids);
  if (at::GradMode::is_enabled() && w.weight.defined())
    return EmbeddingFunction::apply(w.weight, ids, w.packed);
  return embedding_rows(ids, w);
}

at::Tensor policy_vector(const at::Tensor& values, at::ScalarType dtype) {
  if (!has_panels(values)) return values;
  if (!values.requires_grad()) return rounded(values, dtype);
  return dtype == at::kFloat ? values
                             : RoundFunction::apply(values, static_cast<std::int64_t>(dtype));
}

}  // namespace rollcall
