// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "kernel_samples.h"

namespace rollcall {
namespace {

constexpr const char* kInstructionSets[] = {"generic", "avx2", "avx512", "avx512bf16"};

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

// Odd numbers of terms and columns, rows that lie apart, panels that are not full.
TEST(PairColumns, ArePackedAsTheNumbersThatTheyHold) {
  constexpr std::int64_t kMostTerms = 7, kMostColumns = 71, kApart = 40;
  const auto x = random_values(kMostTerms * kMostColumns, 15);
  for (const char* isa : kInstructionSets) {
    const CpuKernels* kernels = cpu_kernels(isa);
    if (kernels == nullptr) continue;
    for (std::int64_t terms = 1; terms <= kMostTerms; ++terms) {
      for (std::int64_t columns = 1; columns <= kMostColumns; ++columns) {
        std::vector<BFloat16Pair> rows(kMostTerms * kApart, 0xffffffffU);
        for (std::int64_t t = 0; t < terms; ++t)
          kernels->round_inputs(x.data() + t * kMostColumns, columns, rows.data() + t * kApart);
        const auto size = static_cast<std::size_t>(panel_count(columns) * kPanelWidth *
                                                   panel_steps<BFloat16Pair>(terms));
        std::vector<BFloat16Pair> packed(size, 1), expected(size, 2);
        kernels->pack_pair_columns(rows.data(), kApart, terms, columns, packed.data());
        kernels->pack_columns_bfloat16(x.data(), kMostColumns, terms, columns, expected.data());
        ASSERT_EQ(packed, expected) << isa << ", " << terms << " x " << columns;
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

}  // namespace
}  // namespace rollcall
