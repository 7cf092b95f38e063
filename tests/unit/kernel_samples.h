// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "model/cpu_kernels.h"
#include "model/sampling.h"

namespace rollcall {

inline std::vector<float> random_values(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(uniform_draw(seed, i) * 2 - 1);
  return values;
}

// A weight [out, in] in panels, and inputs as its kernels take them.
template <class Element>
struct Layer {
  using Type = Element;
  Layer(const std::vector<float>& w, std::int64_t outputs, std::int64_t inputs)
      : out(outputs),
        in(inputs),
        panels(static_cast<std::size_t>(panel_count(out) * kPanelWidth * steps())) {
    pack_weights(w.data(), out, in, panels.data());
  }
  std::int64_t steps() const { return panel_steps<Element>(in); }

  std::vector<Element> inputs(const CpuKernels& kernels, const std::vector<float>& x) const {
    if constexpr (std::is_same_v<Element, float>) {
      return x;
    } else {
      const std::int64_t rows = std::ssize(x) / in;
      std::vector<Element> pairs(static_cast<std::size_t>(rows * steps()));
      for (std::int64_t r = 0; r < rows; ++r)
        kernels.round_inputs(&x[r * in], in, &pairs[r * steps()]);
      return pairs;
    }
  }

  // y [rows, out] from x [rows, in].
  void apply(const CpuKernels& kernels, const std::vector<float>& x, const float* bias, float* y,
             bool add = false) const {
    const std::vector<Element> rounded = inputs(kernels, x);
    const LinearCall<Element> call{.x = rounded.data(),
                                   .ldx = steps(),
                                   .rows = std::ssize(x) / in,
                                   .packed = panels.data(),
                                   .in = in,
                                   .out = out,
                                   .bias = bias,
                                   .y = y,
                                   .ldy = out,
                                   .add = add};
    if constexpr (std::is_same_v<Element, float>) {
      kernels.linear(call);
    } else {
      kernels.linear_bfloat16(call);
    }
  }

  std::int64_t out, in;
  std::vector<Element> panels;
};

// a^T @ b of a [terms, rows] and b [terms, columns], added to ones.
template <class Element>
std::vector<float> outer_product(const CpuKernels& kernels, const std::vector<float>& a,
                                 const std::vector<float>& b, std::int64_t terms) {
  const std::int64_t rows = std::ssize(a) / terms, columns = std::ssize(b) / terms;
  const std::int64_t steps = panel_steps<Element>(terms);
  std::vector<Element> packed_a(static_cast<std::size_t>(kPanelWidth * (steps + 1))),
      packed_b(static_cast<std::size_t>(panel_count(columns) * kPanelWidth * steps));
  std::vector<float> y(static_cast<std::size_t>(rows * columns), 1);
  const OuterCall<Element> call{packed_a.data(), packed_b.data(), terms,  rows,
                                columns,         y.data(),        columns};
  if constexpr (std::is_same_v<Element, float>) {
    kernels.pack_columns(a.data(), rows, terms, rows, packed_a.data());
    kernels.pack_columns(b.data(), columns, terms, columns, packed_b.data());
    kernels.outer(call);
  } else {
    kernels.pack_columns_bfloat16(a.data(), rows, terms, rows, packed_a.data());
    kernels.pack_columns_bfloat16(b.data(), columns, terms, columns, packed_b.data());
    kernels.outer_bfloat16(call);
  }
  return y;
}

// Positions 0..n-1 of random keys and values in the blocked layout; what no position fills is NaN.
template <class Element = float>
struct Blocked {
  Blocked(const AttentionShape& shape, std::int64_t n, std::uint64_t seed)
      : Blocked(shape, random_values(static_cast<std::size_t>(n * width(shape)), seed),
                random_values(static_cast<std::size_t>(n * width(shape)), seed + 1)) {}
  Blocked(const AttentionShape& shape, std::vector<float> of_keys, std::vector<float> of_values)
      : k(std::move(of_keys)), v(std::move(of_values)) {
    const std::int64_t n = std::ssize(k) / width(shape);
    Element nan;
    std::memset(&nan, 0xff, sizeof(nan));
    keys.resize(static_cast<std::size_t>(key_blocks(n) * shape.key_block<Element>()), nan);
    values.resize(static_cast<std::size_t>(n * shape.value_row<Element>()));
    for (std::int64_t i = 0; i < n; ++i)
      store_key_value(shape, i, &k[i * width(shape)], &v[i * width(shape)], keys.data(),
                      values.data());
  }
  static std::int64_t width(const AttentionShape& shape) { return shape.kv_heads * shape.head_dim; }

  KeyValueView<Element> view(std::int64_t length) const {
    return {keys.data(), values.data(), length};
  }
  std::vector<float> k, v;
  std::vector<Element> keys, values;
};

}  // namespace rollcall
