// SPDX-License-Identifier: Apache-2.0
#include "model/ops.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "model/cpu_kernels.h"
#include "model/cpu_team.h"
#include "model/kernel_calls.h"

namespace rollcall {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct DistinctRowsFunction : torch::autograd::Function<DistinctRowsFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& ids) {
    context->save_for_backward({ids});
    context->saved_data["rows"] = x.size(0);
    return x.index_select(0, ids);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor ids = context->get_saved_variables()[0], dy = grads[0].contiguous();
    at::Tensor dx = at::zeros({context->saved_data["rows"].toInt(), dy.size(1)}, dy.options());
    const std::int64_t n = dy.size(1);
    const auto* id = ids.const_data_ptr<std::int64_t>();
    parallel(ids.numel(), n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        std::copy_n(dy.const_data_ptr<float>() + i * n, n, dx.data_ptr<float>() + id[i] * n);
    });
    return {dx, at::Tensor()};
  }
};

at::Tensor norm_forward(const at::Tensor& x, const at::Tensor& weight, double eps,
                        at::Tensor* rstd) {
  const std::int64_t n = x.size(-1), rows = x.numel() / n;
  at::Tensor y = at::empty_like(x);
  if (rstd != nullptr) *rstd = at::empty({rows, 1}, x.options());
  parallel(rows, 8 * n, [&](std::int64_t begin, std::int64_t end) {
    cpu_kernels().rms_norm(x.const_data_ptr<float>() + begin * n, weight.const_data_ptr<float>(),
                           end - begin, n, static_cast<float>(eps), y.data_ptr<float>() + begin * n,
                           rstd == nullptr ? nullptr : rstd->data_ptr<float>() + begin);
  });
  return y;
}

struct NormFunction : torch::autograd::Function<NormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            double eps) {
    at::Tensor rstd;
    at::Tensor y = norm_forward(x, weight, eps, &rstd);
    context->save_for_backward({x, weight, rstd});
    return y;
  }
  // The gradient of the weight is summed in pieces of so many rows, whatever the threads.
  static constexpr std::int64_t kSummedRows = 256;
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], dy = grads[0].contiguous();
    const std::int64_t n = x.size(-1), rows = x.numel() / n;
    const std::int64_t pieces = (rows + kSummedRows - 1) / kSummedRows;
    at::Tensor dx = at::empty_like(x), dweight = at::zeros({pieces, n}, x.options());
    parallel(pieces, 16 * kSummedRows * n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t piece = begin; piece < end; ++piece) {
        const std::int64_t first = piece * kSummedRows;
        cpu_kernels().rms_norm_gradient(
            x.const_data_ptr<float>() + first * n, saved[1].const_data_ptr<float>(),
            saved[2].const_data_ptr<float>() + first, dy.const_data_ptr<float>() + first * n,
            std::min(kSummedRows, rows - first), n, dx.data_ptr<float>() + first * n,
            dweight.data_ptr<float>() + piece * n);
      }
    });
    return {dx, dweight.sum(0), at::Tensor()};
  }
};

at::Tensor rope_kernel(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  at::Tensor y = x.clone(at::MemoryFormat::Contiguous);
  const std::int64_t row = x.size(1) * x.size(2), half = x.size(2) / 2;
  parallel(x.size(0), 4 * row, [&](std::int64_t begin, std::int64_t end) {
    cpu_kernels().rope(y.data_ptr<float>() + begin * row, end - begin, x.size(1), x.size(2),
                       cosine.const_data_ptr<float>() + begin * half,
                       sine.const_data_ptr<float>() + begin * half);
  });
  return y;
}

struct RopeFunction : torch::autograd::Function<RopeFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cosine,
                            const at::Tensor& sine) {
    context->save_for_backward({cosine, sine});
    return rope_kernel(x, cosine, sine);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();  // the inverse rotation
    return {rope_kernel(grads[0].contiguous(), saved[0], -saved[1]), at::Tensor(), at::Tensor()};
  }
};

at::Tensor silu_mul_kernel(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor y = at::empty_like(gate);
  const std::int64_t row =
      gate.size(-1);  // split by rows, so that lanes do not depend on the split
  parallel(gate.numel() / row, 16 * row, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      cpu_kernels().silu_mul(gate.const_data_ptr<float>() + r * row,
                             up.const_data_ptr<float>() + r * row, row,
                             y.data_ptr<float>() + r * row);
  });
  return y;
}

struct SiluMulFunction : torch::autograd::Function<SiluMulFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate,
                            const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return silu_mul_kernel(gate, up);
  }
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], dy = grads[0].contiguous();
    at::Tensor dgate = at::empty_like(gate), dup = at::empty_like(up);
    const std::int64_t row = gate.size(-1);
    parallel(gate.numel() / row, 32 * row, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin * row; i < end * row; i += row)
        cpu_kernels().silu_mul_gradient(gate.const_data_ptr<float>() + i,
                                        up.const_data_ptr<float>() + i,
                                        dy.const_data_ptr<float>() + i, row,
                                        dgate.data_ptr<float>() + i, dup.data_ptr<float>() + i);
    });
    return {dgate, dup};
  }
};

constexpr std::int64_t kLogitRows = 512;  // rows of logits alive at once

// Logits [rows, vocabulary] of what linear_inputs() made of some rows.
at::Tensor logits_of(const at::Tensor& inputs, const LinearWeight& head) {
  at::Tensor logits = at::empty({inputs.size(0), head.out}, at::kFloat);
  linear_into(inputs, head, logits);
  return logits;
}

// d logprob / d logits = onehot(target) - softmax, over the valid ids: logits [rows, vocabulary]
// become their gradients.
void logit_gradients(at::Tensor& logits, const std::int64_t* target, const float* lse,
                     const float* gradient, std::int64_t valid_ids) {
  const std::int64_t vocabulary = logits.size(1);
  parallel(logits.size(0), 32 * vocabulary, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      float* row = logits.data_ptr<float>() + r * vocabulary;
      cpu_kernels().softmax(row, valid_ids, lse[r], row);
      for (std::int64_t i = 0; i < valid_ids; ++i) row[i] *= -gradient[r];
      std::fill(row + valid_ids, row + vocabulary, 0.0f);
      row[target[r]] += gradient[r];
    }
  });
}

// dhidden's rows from `begin` on, of the gradients of their logits as linear_inputs() makes them.
void put_gradients(const at::Tensor& of_logits, const LinearWeight& head, std::int64_t begin,
                   at::Tensor& dhidden) {
  at::Tensor rows;
  add_times_weight(of_logits, head, rows);
  dhidden.slice(0, begin, begin + rows.size(0)).copy_(rows);
}

// What a frozen head gives of gradients: each row's is a multiple of one that the logits at hand
// give at once. A trained head's weight gets a sum over rows, by factors that are known only
// backward: it computes the logits again.
struct TokenLogprobFunction : torch::autograd::Function<TokenLogprobFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& hidden,
                               const std::optional<at::Tensor>& weight, const LinearWeight& layer,
                               const at::Tensor& targets, std::int64_t valid_ids) {
    const std::int64_t n = hidden.size(0), vocabulary = layer.out;
    const LinearWeight head = with_panels(layer);
    at::Tensor logprobs = at::empty({n}, hidden.options()), lse = at::empty({n}, hidden.options());
    at::Tensor entropy = at::empty({n}, hidden.options());
    const bool trained = weight.has_value() && weight->requires_grad();
    const at::Tensor ones = at::ones({n}, hidden.options());
    at::Tensor dlogprob;  // by hidden, each row's own
    if (!trained && hidden.requires_grad()) dlogprob = at::empty_like(hidden);
    const auto* target = targets.const_data_ptr<std::int64_t>();
    for (std::int64_t begin = 0; begin < n; begin += kLogitRows) {
      const std::int64_t end = std::min(n, begin + kLogitRows);
      at::Tensor logits = logits_of(linear_inputs(hidden.slice(0, begin, end), head), head);
      parallel(end - begin, 32 * vocabulary, [&](std::int64_t first, std::int64_t last) {
        std::vector<float> p(static_cast<std::size_t>(valid_ids));
        for (std::int64_t r = first; r < last; ++r) {
          const float* row = logits.const_data_ptr<float>() + r * vocabulary;
          const float total = cpu_kernels().logsumexp(row, valid_ids);
          cpu_kernels().softmax(row, valid_ids, total, p.data());
          double expected = 0;
          for (std::int64_t i = 0; i < valid_ids; ++i)
            expected += static_cast<double>(p[i]) * row[i];
          lse.data_ptr<float>()[begin + r] = total;
          logprobs.data_ptr<float>()[begin + r] = row[target[begin + r]] - total;
          entropy.data_ptr<float>()[begin + r] = static_cast<float>(total - expected);
        }
      });
      if (!dlogprob.defined()) continue;
      logit_gradients(logits, target + begin, lse.const_data_ptr<float>() + begin,
                      ones.const_data_ptr<float>() + begin, valid_ids);
      put_gradients(linear_inputs(logits, head), head, begin, dlogprob);
    }
    context->save_for_backward(trained
                                   ? variable_list{hidden, targets, lse, layer.weight, layer.packed}
                                   : variable_list{dlogprob});
    context->saved_data["trained"] = trained;
    context->saved_data["vocabulary"] = vocabulary;
    context->saved_data["dtype"] = static_cast<std::int64_t>(layer.dtype);
    context->saved_data["valid_ids"] = valid_ids;
    context->mark_non_differentiable({entropy});
    return {logprobs, entropy};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    if (!context->saved_data["trained"].toBool())
      return {saved[0] * grads[0].unsqueeze(1), at::Tensor(), at::Tensor(), at::Tensor(),
              at::Tensor()};
    const at::Tensor& hidden = saved[0];
    const LinearWeight head =
        with_panels({.weight = saved[3],
                     .packed = saved[4],
                     .in = hidden.size(1),
                     .out = context->saved_data["vocabulary"].toInt(),
                     .dtype = static_cast<at::ScalarType>(context->saved_data["dtype"].toInt())});
    const at::Tensor grad = grads[0].contiguous();
    const std::int64_t n = hidden.size(0);
    at::Tensor dhidden = at::empty_like(hidden);
    std::vector<at::Tensor> dweight{at::zeros({head.out, head.in}, hidden.options())};
    for (std::int64_t begin = 0; begin < n; begin += kLogitRows) {
      const std::int64_t end = std::min(n, begin + kLogitRows);
      const at::Tensor inputs = linear_inputs(hidden.slice(0, begin, end), head);
      at::Tensor logits = logits_of(inputs, head);
      logit_gradients(logits, saved[1].const_data_ptr<std::int64_t>() + begin,
                      saved[2].const_data_ptr<float>() + begin,
                      grad.const_data_ptr<float>() + begin,
                      context->saved_data["valid_ids"].toInt());
      const at::Tensor gradients = linear_inputs(logits, head);
      put_gradients(gradients, head, begin, dhidden);
      add_outer(inputs, {gradients}, dweight);
    }
    return {dhidden, dweight[0], at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor distinct_rows(const at::Tensor& x, const at::Tensor& ids) {
  // The general gradient adds row by row, on one thread.
  return has_kernel(x) ? DistinctRowsFunction::apply(x, ids) : x.index_select(0, ids);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (!has_kernel(x)) return x * at::rsqrt((x * x).mean(-1, /*keepdim=*/true) + eps) * weight;
  if (at::GradMode::is_enabled()) return NormFunction::apply(x, weight, eps);
  return norm_forward(x, weight, eps, nullptr);
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
  if (has_kernel(x)) {
    if (at::GradMode::is_enabled()) return RopeFunction::apply(x, cosine, sine);
    return rope_kernel(x, cosine, sine);
  }
  const std::int64_t half = x.size(-1) / 2;
  const at::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);
  const at::Tensor c = cosine.unsqueeze(1), s = sine.unsqueeze(1);
  return at::cat({a * c - b * s, b * c + a * s}, -1);
}

at::Tensor silu_mul(const at::Tensor& gate, const at::Tensor& up) {
  if (!has_kernel(gate)) return at::silu(gate) * up;
  if (at::GradMode::is_enabled()) return SiluMulFunction::apply(gate, up);
  return silu_mul_kernel(gate, up);
}

TokenLogprobs token_logprobs(const at::Tensor& hidden, const LinearWeight& head,
                             const at::Tensor& targets, std::int64_t valid_ids) {
  if (has_kernel(hidden)) {
    const auto both =
        TokenLogprobFunction::apply(hidden, defined(head.weight), head, targets, valid_ids);
    return {both[0], both[1]};
  }
  const at::Tensor all =
      at::log_softmax(at::linear(hidden, head.weight).narrow(1, 0, valid_ids), 1);
  const at::Tensor entropy = -(all.exp() * all).sum(1).detach();
  return {all.gather(1, targets.unsqueeze(1)).squeeze(1), entropy};
}

}  // namespace rollcall
