// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernel_samples.h"

namespace rollcall {
namespace {

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
  std::vector<float> blocked_keys(2 * shape.key_block<float>()), blocked_values(blocked_keys);
  for (std::int64_t j = 0; j < positions; ++j) {
    store_key(shape, j, &keys[j * 40], blocked_keys.data());
    store_key(shape, j, &values[j * 40], blocked_values.data());
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

}  // namespace
}  // namespace rollcall
