// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "comms/error.h"
#include "model/cpu_kernels.h"
#include "model/cpu_team.h"
#include "model/kernel_calls.h"
#include "model/ops.h"

namespace rollcall {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The segments as a tensor, so that they can ride through an autograd function.
at::Tensor to_tensor(const std::vector<Segment>& segments) {
  at::Tensor table = at::empty({static_cast<std::int64_t>(segments.size()), 3}, at::kLong);
  auto* to = table.data_ptr<std::int64_t>();
  for (const auto& s : segments) {
    *to++ = s.begin;
    *to++ = s.length;
    *to++ = s.prefix;
  }
  return table;
}

std::vector<Segment> to_segments(const at::Tensor& table) {
  std::vector<Segment> segments;
  const auto* from = table.const_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < table.size(0); ++i, from += 3)
    segments.push_back({from[0], from[1], from[2]});
  return segments;
}

// Keys of every segment as KeyValueView has them; what is behind a segment's last one is anything.
struct BlockedKeys {
  at::Tensor keys;
  std::vector<std::int64_t> first_of;  // where a segment's begin
  const float* of(std::size_t segment) const {
    return keys.const_data_ptr<float>() + first_of[segment];
  }
};

// k [T, kv_heads, head_dim].
BlockedKeys block_keys(const at::Tensor& k, const std::vector<Segment>& segments,
                       const AttentionShape& shape) {
  BlockedKeys blocked;
  std::int64_t size = 0;
  for (const auto& s : segments) {
    blocked.first_of.push_back(size);
    size += key_blocks(s.length) * shape.key_block<float>();
  }
  blocked.keys = at::empty({size}, k.options());
  const std::int64_t row = shape.kv_heads * shape.head_dim;
  parallel(std::ssize(segments), 8 * k.numel() / std::max<std::int64_t>(1, std::ssize(segments)),
           [&](std::int64_t begin, std::int64_t end) {
             for (auto i = static_cast<std::size_t>(begin); std::cmp_less(i, end); ++i) {
               const float* from = k.const_data_ptr<float>() + segments[i].begin * row;
               float* to = blocked.keys.data_ptr<float>() + blocked.first_of[i];
               for (std::int64_t j = 0; j < segments[i].length; ++j)
                 store_key(shape, j, from + j * row, to);
             }
           });
  return blocked;
}

// v [T, kv_heads, head_dim] with each head as long as KeyValueView has it.
at::Tensor padded_values(const at::Tensor& v, const AttentionShape& shape) {
  const std::int64_t padding = shape.value_head<float>() - shape.head_dim;
  return padding == 0 ? v : at::constant_pad_nd(v, {0, padding});
}

// The queries that are of a segment's rows.
Part queries_of(const Segment& s, const at::Tensor& rows) {
  const auto* begin = rows.const_data_ptr<std::int64_t>();
  const auto* end = begin + rows.numel();
  return {std::lower_bound(begin, end, s.begin) - begin,
          std::lower_bound(begin, end, s.begin + s.length) - begin};
}

std::int64_t prefix_length(const Segment& s, const std::vector<Segment>& segments) {
  return s.prefix < 0 ? 0 : segments[static_cast<std::size_t>(s.prefix)].length;
}

// Kernel forward; lse [N, heads] is filled for the backward.
at::Tensor attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const at::Tensor& rows_of_queries,
                             const std::vector<Segment>& segments, double scale,
                             std::int64_t window, at::Tensor* lse) {
  const AttentionShape shape{q.size(1), k.size(1), q.size(2), static_cast<float>(scale)};
  const BlockedKeys keys = block_keys(k, segments, shape);
  const at::Tensor values = padded_values(v, shape);
  const auto view = [&](std::size_t segment, std::int64_t length) {
    const std::int64_t first = segments[segment].begin * shape.value_row<float>();
    return KeyValueView<float>{keys.of(segment), values.const_data_ptr<float>() + first, length};
  };
  at::Tensor out = at::empty_like(q);
  if (lse != nullptr) *lse = at::empty({q.size(0), q.size(1)}, q.options());
  const std::int64_t row_floats = shape.heads * shape.head_dim;
  const auto* row_of = rows_of_queries.const_data_ptr<std::int64_t>();
  std::vector<AttentionRow<float>> rows;
  std::int64_t most_blocks = 0, positions = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    const std::int64_t before = prefix_length(s, segments);
    const auto prefix =
        s.prefix < 0 ? KeyValueView<float>{} : view(static_cast<std::size_t>(s.prefix), before);
    const Part queries = queries_of(s, rows_of_queries);
    for (std::int64_t n = queries.first; n < queries.last; ++n) {
      const std::int64_t j = row_of[n] - s.begin;
      rows.push_back(attention_row(
          q.const_data_ptr<float>() + n * row_floats, out.data_ptr<float>() + n * row_floats,
          lse == nullptr ? nullptr : lse->data_ptr<float>() + n * shape.heads, prefix,
          view(i, j + 1), window));
      positions += before + j + 1 - window_start(before + j, window);
    }
    most_blocks = std::max(most_blocks, key_blocks(before) + key_blocks(s.length));
  }
  const std::int64_t count = std::ssize(rows);
  if (count != q.size(0))
    throw Error("attention: queries of rows that are in no segment, or not in ascending order");
  if (count == 0) return out;
  parallel(count, 4 * row_floats * (positions / count), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch(static_cast<std::size_t>(attention_scratch(shape, most_blocks)));
    cpu_kernels().attention(rows.data() + begin, end - begin, shape, 0, shape.heads,
                            scratch.data());
  });
  return out;
}

// A prompt with the segments that attend to it, or a segment alone: nothing outside touches the
// same keys, so groups are independent.
std::vector<std::vector<std::size_t>> independent_groups(const std::vector<Segment>& segments) {
  std::vector<std::vector<std::size_t>> groups;
  std::vector<std::size_t> group_of(segments.size());
  for (std::size_t s = 0; s < segments.size(); ++s) {
    if (segments[s].prefix < 0) {
      group_of[s] = groups.size();
      groups.emplace_back();
    } else {
      group_of[s] = group_of[static_cast<std::size_t>(segments[s].prefix)];
    }
    groups[group_of[s]].push_back(s);
  }
  return groups;
}

struct AttentionGradients {
  at::Tensor q, k, v;
};

AttentionGradients attention_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const at::Tensor& rows_of_queries, const at::Tensor& out,
                                      const at::Tensor& dout, const at::Tensor& lse,
                                      const std::vector<Segment>& segments, double scale,
                                      std::int64_t window) {
  const AttentionShape shape{q.size(1), k.size(1), q.size(2), static_cast<float>(scale)};
  const BlockedKeys keys = block_keys(k, segments, shape), values = block_keys(v, segments, shape);
  AttentionGradients g{at::zeros_like(q), at::zeros_like(k), at::zeros_like(v)};
  const std::int64_t row = shape.heads * shape.head_dim, kv_row = shape.kv_heads * shape.head_dim;
  const auto* row_of = rows_of_queries.const_data_ptr<std::int64_t>();
  const auto gradient_row = [&](std::int64_t n, std::size_t stretch, std::int64_t first_seen,
                                std::int64_t length) {
    const std::int64_t first = segments[stretch].begin * kv_row;
    return AttentionGradientRow{q.const_data_ptr<float>() + n * row,
                                dout.const_data_ptr<float>() + n * row,
                                lse.const_data_ptr<float>() + n * shape.heads,
                                out.const_data_ptr<float>() + n * row,
                                g.q.data_ptr<float>() + n * row,
                                keys.of(stretch),
                                values.of(stretch),
                                k.const_data_ptr<float>() + first,
                                g.k.data_ptr<float>() + first,
                                g.v.data_ptr<float>() + first,
                                length,
                                first_seen};
  };
  const auto groups = independent_groups(segments);
  const auto tasks = static_cast<std::int64_t>(groups.size()) * shape.kv_heads;
  parallel(tasks, kGrainFlops, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch;
    for (std::int64_t task = begin; task < end; ++task) {
      for (const std::size_t s : groups[static_cast<std::size_t>(task / shape.kv_heads)]) {
        const Segment& segment = segments[s];
        const std::int64_t before = prefix_length(segment, segments);
        const Part queries = queries_of(segment, rows_of_queries);
        std::vector<AttentionGradientRow> rows;
        const auto place = [&](std::int64_t n) { return row_of[n] - segment.begin; };
        const auto start = [&](std::int64_t n) { return window_start(before + place(n), window); };
        for (std::int64_t n = queries.first; n < queries.last; ++n)
          rows.push_back(
              gradient_row(n, s, std::max<std::int64_t>(0, start(n) - before), place(n) + 1));
        for (std::int64_t n = queries.first; n < queries.last && start(n) < before; ++n)
          rows.push_back(
              gradient_row(n, static_cast<std::size_t>(segment.prefix), start(n), before));
        const std::int64_t blocks = key_blocks(std::max(segment.length, before));
        scratch.resize(static_cast<std::size_t>(2 * kMostTeamRows * blocks * kKeyBlock));
        cpu_kernels().attention_gradient(rows.data(), static_cast<std::int64_t>(rows.size()),
                                         task % shape.kv_heads, shape, scratch.data());
      }
    }
  });
  return g;
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& rows, const at::Tensor& segments,
                            double scale, std::int64_t window) {
    at::Tensor lse;
    at::Tensor out = attention_forward(q, k, v, rows, to_segments(segments), scale, window, &lse);
    context->save_for_backward({q, k, v, segments, out, lse, rows});
    context->saved_data["scale"] = scale;
    context->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const at::Tensor dout = grads[0].contiguous();
    const auto g = attention_backward(
        q, k, v, saved[6], saved[4], dout, saved[5], to_segments(saved[3]),
        context->saved_data["scale"].toDouble(), context->saved_data["window"].toInt());
    return {g.q, g.k, g.v, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// Rows [begin, begin + length) of x [T, kv * group, d] as [kv, group * length, d].
at::Tensor by_kv_head(const at::Tensor& x, const Segment& s, std::int64_t kv_heads) {
  const std::int64_t group = x.size(1) / kv_heads;
  return x.narrow(0, s.begin, s.length)
      .view({s.length, kv_heads, group, x.size(2)})
      .permute({1, 2, 0, 3})
      .reshape({kv_heads, group * s.length, x.size(2)});
}

// Plain attention of one segment through ATen, with its gradients.
at::Tensor segment_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const Segment& s, const Segment* prefix, double scale,
                             std::int64_t window) {
  const std::int64_t kv = k.size(1), length = s.length;
  const std::int64_t before = prefix == nullptr ? 0 : prefix->length;
  at::Tensor keys = by_kv_head(k, s, kv), values = by_kv_head(v, s, kv);
  if (prefix != nullptr) {
    keys = at::cat({by_kv_head(k, *prefix, kv), keys}, 1);
    values = at::cat({by_kv_head(v, *prefix, kv), values}, 1);
  }
  const at::Tensor all =
      at::ones({length, before + length}, q.options().dtype(at::kBool).requires_grad(false));
  at::Tensor hidden = all.triu(before + 1);
  if (window > 0) hidden = hidden.logical_or(all.tril(before - window));
  const at::Tensor scores = (at::bmm(by_kv_head(q, s, kv), keys.transpose(1, 2)) * scale)
                                .view({kv, -1, length, keys.size(1)})
                                .masked_fill(hidden, -std::numeric_limits<double>::infinity());
  const at::Tensor mixed = at::bmm(at::softmax(scores, -1).view({kv, -1, keys.size(1)}), values);
  return mixed.view({kv, q.size(1) / kv, length, q.size(2)})
      .permute({2, 0, 1, 3})
      .reshape({length, q.size(1), q.size(2)});
}

}  // namespace

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<Segment>& segments, double scale, std::int64_t window,
                            const at::Tensor& rows) {
  if (has_kernel(q)) {
    const at::Tensor of_queries = rows.defined() ? rows : at::arange(k.size(0));
    if (at::GradMode::is_enabled())
      return AttentionFunction::apply(q, k, v, of_queries, to_tensor(segments), scale, window);
    return attention_forward(q, k, v, of_queries, segments, scale, window, nullptr);
  }
  if (rows.defined()) {
    const at::Tensor all =
        at::zeros({k.size(0), q.size(1), q.size(2)}, q.options()).index_copy(0, rows, q);
    return packed_attention(all, k, v, segments, scale, window).index_select(0, rows);
  }
  std::vector<at::Tensor> outputs;
  for (const auto& s : segments) {
    if (s.length == 0) continue;
    const Segment* prefix = s.prefix < 0 ? nullptr : &segments[static_cast<std::size_t>(s.prefix)];
    outputs.push_back(segment_attention(q, k, v, s, prefix, scale, window));
  }
  return at::cat(outputs, 0);
}

}  // namespace rollcall
