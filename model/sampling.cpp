// SPDX-License-Identifier: Apache-2.0
#include "model/sampling.h"

#include <vector>

#include "model/cpu_kernels.h"

namespace rollcall {
namespace {

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

constexpr std::uint64_t kGamma = 0x9e3779b97f4a7c15ULL;

}  // namespace

double uniform_draw(std::uint64_t seed, std::uint64_t n) {
  return static_cast<double>(mix(mix(seed + kGamma) + (n + 1) * kGamma) >> 11) * 0x1.0p-53;
}

std::uint64_t derive_seed(std::uint64_t seed, std::span<const std::uint64_t> path) {
  for (const std::uint64_t part : path) seed = mix(mix(seed + kGamma) ^ (part + kGamma));
  return seed;
}

SampledToken sample_token(std::span<const float> logits, double uniform) {
  const auto n = static_cast<std::int64_t>(logits.size());
  const float lse = cpu_kernels().logsumexp(logits.data(), n);
  static thread_local std::vector<float> p;
  p.resize(logits.size());
  cpu_kernels().softmax(logits.data(), n, lse, p.data());
  double total = 0;
  for (const float x : p) total += static_cast<double>(x);
  const double target = uniform * total;  // the p[i] sum to 1 only up to rounding
  double below = 0;
  std::int64_t id = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (p[static_cast<std::size_t>(i)] <= 0) continue;
    id = i;
    below += static_cast<double>(p[static_cast<std::size_t>(i)]);
    if (below > target) break;
  }
  return {static_cast<std::int32_t>(id), logits[static_cast<std::size_t>(id)] - lse};
}

}  // namespace rollcall
