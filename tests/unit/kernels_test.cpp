// SPDX-License-Identifier: Apache-2.0
#include <c10/util/BFloat16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "model/cpu_kernels.h"
#include "model/sampling.h"

namespace rollcall {
namespace {

std::vector<float> random_values(std::size_t n, std::uint64_t seed) {
  std::vector<float> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<float>(uniform_draw(seed, i) * 2 - 1);
  return values;
}

constexpr const char* kInstructionSets[] = {"generic", "avx2", "avx512", "avx512bf16"};

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
                                   .last_panel = panel_count(out),
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

std::vector<float> first_rows(const std::vector<float>& x, std::int64_t rows, std::int64_t n) {
  return {x.begin(), x.begin() + rows * n};
}

std::vector<float> rounded_to_bfloat16(std::vector<float> values) {
  for (float& v : values) {
    const auto bits = std::bit_cast<std::uint32_t>(v);
    v = std::bit_cast<float>((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
  }
  return values;
}

TEST(LinearKernel, MatchesADoubleReferenceForOddSizes) {
  const std::int64_t rows = 29, in = 37, out = 51;
  const auto x = random_values(rows * in, 1), w = random_values(out * in, 2),
             bias = random_values(out, 3);
  std::vector<float> y(rows * out);
  Layer<float>(w, out, in).apply(cpu_kernels(), x, bias.data(), y.data());
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t o = 0; o < out; ++o) {
      double sum = bias[o];
      for (std::int64_t k = 0; k < in; ++k)
        sum += static_cast<double>(x[r * in + k]) * w[o * in + k];
      ASSERT_NEAR(y[r * out + o], sum, 1e-5);
    }
  }
}

// 1 + 4095 * 2^-25: next to the 1 each small term is below half a unit in the last place, so a
// single accumulator would lose them all, an error of 1.2e-4. Only those of its block may go.
TEST(LinearKernel, KeepsSmallTermsBesideALargeOne) {
  const std::int64_t in = 4096;
  std::vector<float> x(in, 1.0F), w(in, 0x1p-25F);
  w[0] = 1;
  const Layer<float> wide(w, 1, in);
  const Layer<BFloat16Pair> half(w, 1, in);
  for (const char* isa : kInstructionSets) {
    const CpuKernels* kernels = cpu_kernels(isa);
    if (kernels == nullptr) continue;
    float y[2];
    wide.apply(*kernels, x, nullptr, &y[0]);
    half.apply(*kernels, x, nullptr, &y[1]);
    for (const float sum : y) EXPECT_NEAR(sum, 1 + 4095 * 0x1p-25, 64 * 0x1p-25) << isa;
  }
}

TEST(LinearKernel, GivesARowTheSameBitsInAnyBatch) {
  const std::int64_t rows = 200, in = 150, out = 130;
  const auto x = random_values(rows * in, 4), w = random_values(out * in, 5);
  const auto same = [&](const auto& layer) {
    std::vector<float> all(rows * out), one(out);
    layer.apply(cpu_kernels(), x, nullptr, all.data());
    for (std::int64_t r = 0; r < rows; ++r) {
      layer.apply(cpu_kernels(), {x.begin() + r * in, x.begin() + (r + 1) * in}, nullptr,
                  one.data());
      for (std::int64_t o = 0; o < out; ++o)
        ASSERT_EQ(all[r * out + o], one[o]) << "row " << r << " column " << o;
    }
  };
  same(Layer<float>(w, out, in));
  same(Layer<BFloat16Pair>(w, out, in));
}

// Every size of a block of rows, a last panel that is not full, an odd number of inputs.
TEST(LinearKernel, MultipliesInBfloat16WhatIsRoundedToIt) {
  const std::int64_t rows = 29, in = 67, out = 83;
  const auto x = random_values(rows * in, 6), w = random_values(out * in, 7),
             bias = random_values(out, 8);
  const Layer<BFloat16Pair> half(w, out, in);
  const Layer<float> wide(rounded_to_bfloat16(w), out, in);
  for (const char* isa : kInstructionSets) {
    const CpuKernels* kernels = cpu_kernels(isa);
    if (kernels == nullptr) continue;
    for (std::int64_t n = 1; n <= rows; ++n) {
      std::vector<float> expected(static_cast<std::size_t>(n * out)), got(expected.size());
      wide.apply(*kernels, rounded_to_bfloat16(first_rows(x, n, in)), bias.data(), expected.data());
      half.apply(*kernels, first_rows(x, n, in), bias.data(), got.data());
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], expected[i], 1e-5) << isa << ", " << n << " rows";
    }
  }
}

// The products of a step are added one after the other, the second input's first: a processor that
// multiplies pairs at once and one that does not give the same bits.
TEST(LinearKernel, AddsTheSecondProductOfAStepFirst) {
  const Layer<BFloat16Pair> layer({0, 1, -1, 0x1p-24F}, 1, 4);
  for (const char* isa : kInstructionSets) {
    const CpuKernels* kernels = cpu_kernels(isa);
    if (kernels == nullptr) continue;
    float y = 1;
    layer.apply(*kernels, {1, 1, 1, 1}, nullptr, &y);
    EXPECT_EQ(y, 0) << isa;  // 1 + 2^-24 rounds to 1
  }
}

// Weights and inputs, products and sums, and what is added to.
TEST(LinearKernel, TakesSubnormalNumbersForZeroInBfloat16) {
  const Layer<BFloat16Pair> layer({0x1p-130F, 0, 0x1p-70F, 0}, 2, 2);
  for (const char* isa : kInstructionSets) {
    const CpuKernels* kernels = cpu_kernels(isa);
    if (kernels == nullptr) continue;
    std::vector<float> y(2), z{0x1p-130F, 1};
    layer.apply(*kernels, {0x1p+10F, 0}, nullptr, y.data());
    EXPECT_EQ(y, (std::vector<float>{0, 0x1p-60F})) << isa;
    layer.apply(*kernels, {0x1p-60F, 0}, nullptr, z.data(), /*add=*/true);
    EXPECT_EQ(z, (std::vector<float>{0, 1})) << isa;
  }
  volatile float small = 0x1p-130F;
  EXPECT_NE(small * 2, 0) << "outside they stay what they are";
}

TEST(LinearKernel, AddsToWhatIsThere) {
  const std::int64_t rows = 14, in = 66, out = 35;
  const auto x = random_values(rows * in, 9), w = random_values(out * in, 10);
  const auto before = random_values(rows * out, 11);
  const auto adds = [&](const auto& layer) {
    std::vector<float> alone(rows * out), added = before;
    layer.apply(cpu_kernels(), x, nullptr, alone.data());
    layer.apply(cpu_kernels(), x, nullptr, added.data(), /*add=*/true);
    for (std::size_t i = 0; i < added.size(); ++i) ASSERT_EQ(added[i], before[i] + alone[i]);
  };
  adds(Layer<float>(w, out, in));
  adds(Layer<BFloat16Pair>(w, out, in));
}

TEST(LinearKernel, TransposesPanelsForTheGradientOfItsInput) {
  const std::int64_t in = 45, out = 131;
  const auto w = random_values(out * in, 12);
  const auto transposes = [&](const auto& layer, const std::vector<float>& values) {
    using Element = typename std::decay_t<decltype(layer)>::Type;
    for (const auto& [first, last] : {std::pair<std::int64_t, std::int64_t>{0, 64}, {64, out}}) {
      std::vector<float> expected;  // [in, last - first]
      for (std::int64_t i = 0; i < in; ++i)
        for (std::int64_t o = first; o < last; ++o) expected.push_back(values[o * in + i]);
      const Layer<Element> wanted(expected, in, last - first);
      std::vector<Element> got(wanted.panels.size());
      for (std::int64_t p = 0; p < panel_count(in); ++p)
        transpose_panel(layer.panels.data(), in, first, last, p,
                        &got[p * kPanelWidth * wanted.steps()]);
      EXPECT_EQ(got, wanted.panels);
    }
  };
  transposes(Layer<float>(w, out, in), w);
  transposes(Layer<BFloat16Pair>(w, out, in), w);
}

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

// Every size of a block, an odd number of terms, panels that are not full.
TEST(OuterKernel, SumsProductsOfColumns) {
  const std::int64_t terms = 131, columns = 70;
  const auto b = rounded_to_bfloat16(random_values(terms * columns, 14));
  for (const char* isa : kInstructionSets) {
    const CpuKernels* kernels = cpu_kernels(isa);
    if (kernels == nullptr) continue;
    for (std::int64_t rows = 1; rows <= kPanelWidth; ++rows) {
      const auto a = rounded_to_bfloat16(random_values(terms * rows, 13));
      const auto wide = outer_product<float>(*kernels, a, b, terms);
      const auto half = outer_product<BFloat16Pair>(*kernels, a, b, terms);
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < columns; ++c) {
          double sum = 1;
          for (std::int64_t t = 0; t < terms; ++t)
            sum += static_cast<double>(a[t * rows + r]) * b[t * columns + c];
          ASSERT_NEAR(wide[r * columns + c], sum, 2e-5) << isa << ", " << rows << " rows";
          ASSERT_NEAR(half[r * columns + c], sum, 2e-5) << isa << ", " << rows << " rows";
        }
      }
    }
  }
}

TEST(RoundedInputs, AreTheNearestAndKeepWhatIsNoNumber) {
  const std::vector<float> x{1.00390625F,
                             1.01171875F,
                             1.00390637F,
                             -0.0F,
                             -3.14159F,
                             std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::max(),
                             std::nanf(""),
                             std::bit_cast<float>(0x7fffffffU)};
  for (const char* isa : kInstructionSets) {
    const CpuKernels* kernels = cpu_kernels(isa);
    if (kernels == nullptr) continue;
    BFloat16Pair pairs[5];
    kernels->round_inputs(x.data(), std::ssize(x), pairs);
    std::vector<float> got;
    for (const BFloat16Pair pair : pairs) {
      got.push_back(std::bit_cast<float>(pair << 16));
      got.push_back(std::bit_cast<float>(pair & 0xffff0000));
    }
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(
        std::vector(got.begin(), got.begin() + 7),
        (std::vector<float>{1, 1.015625F, 1.0078125F, -0.0F, -3.140625F, infinity, -infinity}))
        << isa;
    EXPECT_TRUE(std::isnan(got[7]) && std::isnan(got[8])) << isa;
    EXPECT_EQ(got[9], 0) << isa;
  }
}

TEST(PackedWeights, RoundToNearestEvenInBfloat16) {
  // 1 + 2^-8 is half-way and goes to even 1; 1 + 3 * 2^-8 to even 1 + 2^-6; a little more goes up.
  const std::vector<float> values{1.00390625F, 1.01171875F, 1.00390637F, -0.0F, 1e-45F, -3.14159F};
  const auto n = static_cast<std::int64_t>(values.size());
  std::vector<BFloat16Pair> packed(
      static_cast<std::size_t>(panel_steps<BFloat16Pair>(n) * kPanelWidth));
  pack_weights(values.data(), 1, n, packed.data());
  std::vector<float> rounded(values.size());
  unpack_weights(packed.data(), n, 0, 1, rounded.data());
  EXPECT_EQ(rounded, (std::vector<float>{1, 1.015625F, 1.0078125F, 0, 0, -3.140625F}));
  EXPECT_TRUE(std::signbit(rounded[3]));
}

TEST(RmsNormKernel, MatchesItsFormulaWithATail) {
  const std::int64_t n = 37;
  const auto x = random_values(n, 6), weight = random_values(n, 7);
  std::vector<float> y(n);
  cpu_kernels().rms_norm(x.data(), weight.data(), 1, n, 1e-5f, y.data(), nullptr);
  double squares = 0;
  for (const float v : x) squares += static_cast<double>(v) * v;
  const double scale = 1 / std::sqrt(squares / n + 1e-5);
  for (std::int64_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], x[i] * scale * weight[i], 1e-5);
}

TEST(RmsNormKernel, HasTheGradientsOfItsFormula) {
  const std::int64_t rows = 3, n = 37;
  const auto x = random_values(rows * n, 6), weight = random_values(n, 7);
  const auto dy = random_values(rows * n, 8);
  std::vector<float> y(x.size()), rstd(rows), dx(x.size()), dweight(n, 1.0f);
  cpu_kernels().rms_norm(x.data(), weight.data(), rows, n, 1e-5f, y.data(), rstd.data());
  cpu_kernels().rms_norm_gradient(x.data(), weight.data(), rstd.data(), dy.data(), rows, n,
                                  dx.data(), dweight.data());
  std::vector<double> sums(n, 1.0);  // the kernel adds to what is there
  for (std::int64_t r = 0; r < rows; ++r) {
    double mean = 0;
    const auto normed = [&](std::int64_t i) {
      return static_cast<double>(x[r * n + i]) * static_cast<double>(rstd[r]);
    };
    for (std::int64_t i = 0; i < n; ++i) mean += dy[r * n + i] * weight[i] * normed(i) / n;
    for (std::int64_t i = 0; i < n; ++i) {
      ASSERT_NEAR(dx[r * n + i], (dy[r * n + i] * weight[i] - normed(i) * mean) * rstd[r], 1e-5);
      sums[i] += dy[r * n + i] * normed(i);
    }
  }
  for (std::int64_t i = 0; i < n; ++i) ASSERT_NEAR(dweight[i], sums[i], 1e-5);
}

std::vector<float> far_out_gates() {
  return {-200, -90, -20, -1, -1e-6f, 0, 1e-6f, 0.5f, 3, 20, 89, 200, 1, 2, 3, 4, 5};
}

TEST(SiluKernel, MatchesItsFormulaFarOutToo) {
  const auto gate = far_out_gates();
  std::vector<float> up(gate.size(), 2.0f), y(gate.size());
  cpu_kernels().silu_mul(gate.data(), up.data(), static_cast<std::int64_t>(gate.size()), y.data());
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double expected = 2 * gate[i] / (1 + std::exp(-static_cast<double>(gate[i])));
    ASSERT_NEAR(y[i], expected, 1e-6 * std::max(1.0, std::abs(expected)));
  }
}

TEST(SiluKernel, HasTheGradientsOfItsFormula) {
  const auto gate = far_out_gates();
  const auto up = random_values(gate.size(), 9), dy = random_values(gate.size(), 10);
  std::vector<float> dgate(gate.size()), dup(gate.size());
  cpu_kernels().silu_mul_gradient(gate.data(), up.data(), dy.data(),
                                  static_cast<std::int64_t>(gate.size()), dgate.data(), dup.data());
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double g = gate[i], s = 1 / (1 + std::exp(-g));
    const double expected = dy[i] * up[i] * s * (1 + g * (1 - s));
    ASSERT_NEAR(dgate[i], expected, 1e-6 * std::max(1.0, std::abs(expected)));
    ASSERT_NEAR(dup[i], dy[i] * g * s, 1e-6 * std::max(1.0, std::abs(dy[i] * g * s)));
  }
}

TEST(LogsumexpKernel, MatchesADoubleReferenceForEveryLength) {
  for (std::int64_t n = 1; n < 70; ++n) {
    auto logits = random_values(static_cast<std::size_t>(n), static_cast<std::uint64_t>(100 + n));
    for (auto& v : logits) v *= 30;
    double sum = 0;
    for (const float v : logits) sum += std::exp(static_cast<double>(v));
    const float lse = cpu_kernels().logsumexp(logits.data(), n);
    ASSERT_NEAR(lse, std::log(sum), 1e-5);
    std::vector<float> e(logits.size() + 1, -1);
    ASSERT_EQ(cpu_kernels().exponentials(logits.data(), n, e.data()), lse) << "not the same bits";
    const double top = *std::max_element(logits.begin(), logits.end());
    for (std::size_t i = 0; i < logits.size(); ++i)
      ASSERT_NEAR(e[i], std::exp(static_cast<double>(logits[i]) - top), 1e-6);
    ASSERT_EQ(e.back(), -1) << "written behind the end";
  }
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

class AttentionKernel : public testing::TestWithParam<AttentionShape> {};

TEST_P(AttentionKernel, MatchesADoubleReferenceOverPrefixAndOwnPositions) {
  const AttentionShape shape = GetParam();
  const std::int64_t before = 21, own = 18, d = shape.head_dim, row = shape.kv_heads * d;
  const Blocked<> prefix(shape, before, 10), rest(shape, own, 20);
  const auto q = random_values(static_cast<std::size_t>(shape.heads * d), 30);
  for (const std::int64_t start : {0, 1, 15, 16, 17, 20, 21, 22, 37, 38}) {  // of the window
    std::vector<float> out(q.size()),
        scratch(static_cast<std::size_t>(shape.heads / shape.kv_heads * 64));
    const AttentionRow<float> task{q.data(), out.data(), nullptr, prefix.view(before).behind(start),
                                   rest.view(own).behind(start - before)};
    cpu_kernels().attention(&task, 1, shape, 0, shape.heads, scratch.data());
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const std::int64_t kv = h / (shape.heads / shape.kv_heads) * d;
      std::vector<double> p, mixed(static_cast<std::size_t>(d));
      double total = 0;
      for (std::int64_t j = start; j < before + own; ++j) {
        const float* key = j < before ? &prefix.k[j * row] : &rest.k[(j - before) * row];
        double score = 0;
        for (std::int64_t i = 0; i < d; ++i)
          score += static_cast<double>(q[h * d + i]) * key[kv + i];
        total += p.emplace_back(std::exp(score * shape.scale));
      }
      for (std::int64_t j = start; j < before + own; ++j) {
        const float* value = j < before ? &prefix.v[j * row] : &rest.v[(j - before) * row];
        for (std::int64_t i = 0; i < d; ++i) mixed[i] += p[j - start] / total * value[kv + i];
      }
      for (std::int64_t i = 0; i < d; ++i) ASSERT_NEAR(out[h * d + i], mixed[i], 1e-5) << start;
    }
  }
}

// Rows that see the same keys are computed together: every mixture of them gives what each gives
// alone, head by head.
TEST_P(AttentionKernel, GivesARowTheSameBitsInEveryCompany) {
  const AttentionShape shape = GetParam();
  const std::int64_t before = 150, most = 40, row_floats = shape.heads * shape.head_dim;
  const Blocked<> prefix(shape, before, 10), other_prefix(shape, before, 11);
  std::vector<Blocked<>> owns;
  for (std::uint64_t i = 0; i < 5; ++i) owns.emplace_back(shape, most, 20 + i);
  std::vector<std::pair<KeyValueView<float>, KeyValueView<float>>> seen;
  for (std::int64_t i = 0; i < 9; ++i)  // a prompt, then the result of a tool
    seen.emplace_back(KeyValueView<float>{}, prefix.view(before - 9 + i));
  for (std::int64_t i = 0; i < 7; ++i) seen.emplace_back(prefix.view(before), owns[0].view(30 + i));
  for (std::size_t i = 0; i < owns.size(); ++i)  // a group in the middle of its answers
    seen.emplace_back(prefix.view(before), owns[i].view(1 + 7 * static_cast<std::int64_t>(i)));
  for (std::size_t i = 0; i < 3; ++i) seen.emplace_back(other_prefix.view(before), owns[i].view(5));
  for (std::size_t i = 0; i < 5; ++i) seen.emplace_back(KeyValueView<float>{}, owns[i].view(5));
  const auto n = static_cast<std::int64_t>(seen.size());
  const auto q = random_values(static_cast<std::size_t>(n * row_floats), 30);
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (const std::int64_t window : {0, 16, 50, 100}) {
    std::vector<float> together(q.size()), alone(q.size());
    std::vector<float> lse_together(static_cast<std::size_t>(n * shape.heads)),
        lse_alone = lse_together;
    std::vector<float> scratch(static_cast<std::size_t>(
        kMostTeamRows * group * (key_blocks(before) + key_blocks(most)) * kKeyBlock));
    const auto rows_into = [&](std::vector<float>& out, std::vector<float>& lse) {
      std::vector<AttentionRow<float>> rows;
      for (std::int64_t r = 0; r < n; ++r) {
        const auto& [prefix_view, own] = seen[static_cast<std::size_t>(r)];
        const std::int64_t start = window_start(prefix_view.length + own.length - 1, window);
        rows.push_back({&q[r * row_floats], &out[r * row_floats], &lse[r * shape.heads],
                        prefix_view.behind(start), own.behind(start - prefix_view.length)});
      }
      return rows;
    };
    const auto all = rows_into(together, lse_together);
    cpu_kernels().attention(all.data(), n, shape, 0, shape.heads, scratch.data());
    for (const auto& row : rows_into(alone, lse_alone))
      for (std::int64_t h = 0; h < shape.heads; ++h)
        cpu_kernels().attention(&row, 1, shape, h, h + 1, scratch.data());
    EXPECT_EQ(together, alone) << window;
    EXPECT_EQ(lse_together, lse_alone) << window;
  }
}

// So a learner may compute with rounded floats what engines compute with pairs.
TEST_P(AttentionKernel, ReadsPairsAsTheFloatsThatTheyRound) {
  const AttentionShape shape = GetParam();
  const std::int64_t before = 37, own = 23, row_floats = shape.heads * shape.head_dim;
  const auto rounded = [](std::vector<float> values) {
    for (float& x : values) x = static_cast<float>(c10::BFloat16(x));
    return values;
  };
  const Blocked<BFloat16Pair> prefix(shape, before, 10), rest(shape, own, 20);
  const Blocked<> wide_prefix(shape, rounded(prefix.k), rounded(prefix.v)),
      wide_rest(shape, rounded(rest.k), rounded(rest.v));
  const auto q = random_values(static_cast<std::size_t>(own * row_floats), 30);
  for (const std::int64_t window : {0, 5, 40}) {
    const auto attend = [&](auto kernel, const auto& first, const auto& second) {
      using Element = std::remove_cvref_t<decltype(first.keys[0])>;
      std::vector<float> out(q.size() + static_cast<std::size_t>(own * shape.heads)),
          scratch(static_cast<std::size_t>(kMostTeamRows * shape.heads * 16 *
                                           (key_blocks(before) + key_blocks(own))));
      std::vector<AttentionRow<Element>> rows;
      for (std::int64_t i = 0; i < own; ++i) {
        const std::int64_t start = window_start(before + i, window);
        rows.push_back({&q[i * row_floats], &out[i * row_floats], &out[q.size() + i * shape.heads],
                        first.view(before).behind(start),
                        second.view(i + 1).behind(start - before)});
      }
      kernel(rows.data(), own, shape, 0, shape.heads, scratch.data());
      return out;
    };
    EXPECT_EQ(attend(cpu_kernels().attention_bfloat16, prefix, rest),
              attend(cpu_kernels().attention, wide_prefix, wide_rest))
        << window;
  }
}

// What a backward pass computes of the same, and rope.
std::vector<float> gradient_values(const CpuKernels& kernels) {
  const std::int64_t rows = 13, n = 70;
  const auto count = static_cast<std::size_t>(rows * n);
  const auto x = random_values(count, 1), y = random_values(count, 2), dy = random_values(count, 3);
  const auto weight = random_values(static_cast<std::size_t>(n), 4);
  std::vector<float> all;
  const auto add = [&](const std::vector<float>& values) {
    all.insert(all.end(), values.begin(), values.end());
  };
  std::vector<float> a(count), b(count), rstd(rows), dweight(n);
  kernels.rms_norm(x.data(), weight.data(), rows, n, 1e-6F, a.data(), rstd.data());
  kernels.rms_norm_gradient(x.data(), weight.data(), rstd.data(), dy.data(), rows, n, a.data(),
                            dweight.data());
  add(a), add(dweight);
  kernels.silu_mul_gradient(x.data(), y.data(), dy.data(), rows * n, a.data(), b.data());
  add(a), add(b);
  std::vector<float> turned = x;  // heads of 14
  kernels.rope(turned.data(), rows, 5, 14, y.data(), dy.data());
  add(turned);
  // Five rows of six heads of 20 against 21 positions that two groups of heads share.
  const AttentionShape shape{6, 2, 20, 0.3F};
  const std::int64_t positions = 21, queries = 5, cells = positions * 40;
  const auto keys = random_values(cells, 5), values = random_values(cells, 6);
  const auto q = random_values(queries * 120, 7), dout = random_values(queries * 120, 8);
  const auto out = random_values(queries * 120, 9);
  std::vector<float> blocked_keys(2 * shape.key_block<float>()), blocked_values(blocked_keys),
      unused(2 * kKeyBlock * shape.value_row<float>());
  for (std::int64_t j = 0; j < positions; ++j) {
    store_key_value(shape, j, &keys[j * 40], &values[j * 40], blocked_keys.data(), unused.data());
    store_key_value(shape, j, &values[j * 40], &keys[j * 40], blocked_values.data(), unused.data());
  }
  const std::vector<float> lse(6, 3.5F);
  std::vector<float> dq(queries * 120), dkeys(cells), dvalues(cells), scratch(2 * 4 * 16 * 2);
  std::vector<AttentionGradientRow> tasks;
  for (std::int64_t r = 0; r < queries; ++r)
    tasks.push_back({&q[r * 120], &dout[r * 120], lse.data(), &out[r * 120], &dq[r * 120],
                     blocked_keys.data(), blocked_values.data(), keys.data(), dkeys.data(),
                     dvalues.data(), positions - queries + r + 1, r});
  for (std::int64_t kv = 0; kv < 2; ++kv)
    kernels.attention_gradient(tasks.data(), queries, kv, shape, scratch.data());
  add(dq), add(dkeys), add(dvalues);
  add(outer_product<float>(kernels, q, dout, 24));
  add(outer_product<BFloat16Pair>(kernels, q, dout, 24));
  return all;
}

// What a forward pass computes, one kernel after another.
std::vector<float> forward_values(const CpuKernels& kernels) {
  const std::int64_t rows = 13, in = 150, out = 70;
  const auto x = random_values(rows * in, 1), w = random_values(out * in, 2);
  std::vector<float> all(8 * rows * out + rows);
  float* y = all.data();
  auto next = [&, at = std::int64_t{0}]() mutable { return y + rows * out * at++; };
  Layer<float>(w, out, in).apply(kernels, x, w.data(), next());
  Layer<BFloat16Pair>(w, out, in).apply(kernels, x, nullptr, next());
  kernels.rms_norm(y, w.data(), rows, out, 1e-6F, next(), nullptr);
  kernels.silu_mul(y, x.data(), rows * out, next());
  const float lse = kernels.logsumexp(y, rows * out);
  kernels.softmax(y, rows * out, lse, next());
  kernels.exponentials(y, rows * out, next());
  const AttentionShape shape{6, 2, 20, 0.3F};
  const Blocked<> prefix(shape, 21, 10), own(shape, 18, 20);
  std::vector<float> scratch(3 * 64);
  const AttentionRow<float> task{x.data(),
                                 next(),
                                 &all[8 * rows * out],
                                 {prefix.keys.data(), prefix.values.data(), 21, 5},
                                 {own.keys.data(), own.values.data(), 18}};
  kernels.attention(&task, 1, shape, 0, shape.heads, scratch.data());
  const Blocked<BFloat16Pair> pairs(shape, 21, 10);
  const AttentionRow<BFloat16Pair> of_pairs{x.data(), next(), nullptr, {}, pairs.view(21)};
  kernels.attention_bfloat16(&of_pairs, 1, shape, 0, shape.heads, scratch.data());
  all.push_back(lse);
  return all;
}

// So workers on different CPUs sample the same tokens.
TEST(Kernels, GiveTheSameBitsForEachInstructionSetWithFusedAdditions) {
  const CpuKernels* avx2 = cpu_kernels("avx2");
  if (cpu_kernels("avx512") == nullptr) GTEST_SKIP() << "this CPU has one of them at most";
  for (const char* isa : {"avx512", "avx512bf16"}) {
    const CpuKernels* wide = cpu_kernels(isa);
    if (wide == nullptr) continue;
    EXPECT_EQ(forward_values(*avx2), forward_values(*wide)) << isa;
    EXPECT_EQ(gradient_values(*avx2), gradient_values(*wide)) << isa;
    EXPECT_NE(forward_values(*cpu_kernels("generic")), forward_values(*wide)) << isa;
  }
}

TEST(Window, BeginsSoManyPositionsBackTheQuerysOwnIncluded) {
  EXPECT_EQ(window_start(9, 0), 0);
  EXPECT_EQ(window_start(9, 1), 9);
  EXPECT_EQ(window_start(9, 4), 6);
  EXPECT_EQ(window_start(9, 100), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionKernel,
    testing::Values(AttentionShape{4, 2, 32, 0.2f}, AttentionShape{6, 1, 24, 0.3f},
                    AttentionShape{3, 3, 40, 0.1f}, AttentionShape{8, 1, 16, 0.25f},
                    AttentionShape{9, 3, 64, 0.125f}, AttentionShape{2, 2, 64, 0.125f}));

TEST(SampleToken, FollowsTheDistribution) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.25f), std::log(0.125f),
                                  std::log(0.125f)};
  std::vector<int> counts(4);
  for (std::uint64_t n = 0; n < 20000; ++n)
    ++counts[static_cast<std::size_t>(sample_token(logits, uniform_draw(9, n)).id)];
  const double expected[] = {10000, 5000, 2500, 2500};
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_NEAR(counts[i], expected[i], 5 * std::sqrt(expected[i]));
}

// More ids than are summed at a time, and a count that divides nothing.
TEST(SampleToken, FindsItsPlaceAmongManyIds) {
  const std::vector<float> equal(1001, 3);
  for (std::uint64_t n = 0; n < 2000; ++n) {
    const double uniform = uniform_draw(11, n);
    EXPECT_EQ(sample_token(equal, uniform).id, static_cast<std::int32_t>(uniform * 1001));
  }
  std::vector<float> rare(1001, -std::numeric_limits<float>::infinity());
  rare[300] = rare[301] = rare[900] = 0;
  EXPECT_EQ(sample_token(rare, 0).id, 300);
  EXPECT_EQ(sample_token(rare, 0.34).id, 301);
  EXPECT_EQ(sample_token(rare, 0.67).id, 900);
  EXPECT_EQ(sample_token(rare, 0x1.fffffffffffffp-1).id, 900);
}

TEST(SampleToken, ReturnsTheLogProbabilityOfWhatItDrew) {
  const std::vector<float> logits{1, 2, 3};
  const auto token = sample_token(logits, 0.999999);
  EXPECT_EQ(token.id, 2);
  EXPECT_NEAR(token.logprob, 3 - std::log(std::exp(1) + std::exp(2) + std::exp(3)), 1e-6);
}

TEST(SampleToken, NeverDrawsAnImpossibleToken) {
  const std::vector<float> logits{0, -1000, 0, -1000};
  for (std::uint64_t n = 0; n < 1000; ++n)
    EXPECT_EQ(sample_token(logits, uniform_draw(3, n)).id % 2, 0);
  EXPECT_EQ(sample_token(logits, 0x1.fffffffffffffp-1).id, 2);
}

}  // namespace
}  // namespace rollcall
