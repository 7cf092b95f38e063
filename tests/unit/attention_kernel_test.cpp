// SPDX-License-Identifier: Apache-2.0
#include <c10/util/BFloat16.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernel_samples.h"

namespace rollcall {
namespace {

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

}  // namespace
}  // namespace rollcall
