// SPDX-License-Identifier: Apache-2.0
#include "model/sampling.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "model/cpu_kernels.h"
#include "model/side_sums.h"

namespace rollcall {
namespace {

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

constexpr std::uint64_t kGamma = 0x9e3779b97f4a7c15ULL;

constexpr std::size_t kSummedIds = 256;

double sum_of(std::span<const float> values) {
  return summed_side_by_side(values, [](float value) { return static_cast<double>(value); });
}

}  // namespace

double uniform_draw(std::uint64_t seed, std::uint64_t n) {
  return static_cast<double>(mix(mix(seed + kGamma) + (n + 1) * kGamma) >> 11) * 0x1.0p-53;
}

std::uint64_t derive_seed(std::uint64_t seed, std::span<const std::uint64_t> path) {
  for (const std::uint64_t part : path) seed = mix(mix(seed + kGamma) ^ (part + kGamma));
  return seed;
}

// By the sums of blocks of ids first, then by the ids of one.
SampledToken sample_token(std::span<const float> logits, double uniform) {
  static thread_local std::vector<float> e;
  static thread_local std::vector<double> sums;
  e.resize(logits.size());
  const float lse =
      cpu_kernels().exponentials(logits.data(), static_cast<std::int64_t>(logits.size()), e.data());
  const auto block_of = [&](std::size_t block) {
    const std::size_t begin = block * kSummedIds;
    return std::span<const float>(e).subspan(begin, std::min(kSummedIds, e.size() - begin));
  };
  sums.clear();
  for (std::size_t begin = 0; begin < e.size(); begin += kSummedIds)
    sums.push_back(sum_of(block_of(sums.size())));
  const double target = uniform * std::accumulate(sums.begin(), sums.end(), 0.0);
  // Rounding may leave no sum above the target: it is then the last id that can be drawn.
  double below = 0, with_block = 0;
  std::size_t block = 0;
  for (std::size_t b = 0; b < sums.size() && with_block <= target; ++b) {
    if (sums[b] <= 0) continue;
    block = b;
    below = with_block;
    with_block += sums[b];
  }
  const std::span<const float> values = block_of(block);
  std::size_t id = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] <= 0) continue;
    id = block * kSummedIds + i;
    below += static_cast<double>(values[i]);
    if (below > target) break;
  }
  return {static_cast<std::int32_t>(id), logits[id] - lse};
}

}  // namespace rollcall
