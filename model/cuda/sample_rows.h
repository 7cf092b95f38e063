// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "model/cuda/kernels.h"

namespace rollcall::cuda {

constexpr int kSampleWarps = 16;

// Double throughout the sums: with 150,000 ids single precision would bend the tail.
__device__ inline double probability(float logit, float highest) {
  return exp(static_cast<double>(logit) - static_cast<double>(highest));
}

__device__ inline double warp_sum(double value) {
  for (int step = kLanes / 2; step > 0; step /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, step);
  }
  return value;
}

__device__ inline double warp_inclusive_scan(double value, int lane) {
  for (int step = 1; step < kLanes; step *= 2) {
    const double below = __shfl_up_sync(kAllLanes, value, step);
    if (lane >= step) value += below;
  }
  return value;
}

// One draw a row from softmax(logits[row, 0..valid[row])) by inverse CDF in the order of the ids:
// logits [rows, vocab], uniforms [rows] in [0, 1); ids [rows] and logprobs [rows] (nats) get the
// result. A row without any finite probability gets id -1 and NaN.
// One block of kSampleWarps a row. Each warp owns a contiguous chunk of ids, so the chunks' sums in
// warp order are the CDF at the chunk borders; the warp whose chunk holds the target walks it 32
// ids at a time. All sums have a fixed shape: equal rows give equal results, whatever else the
// batch holds.
static __global__ void sample_rows(const float* logits, std::int64_t vocab,
                                   const std::int32_t* valid_of, const float* uniforms,
                                   std::int32_t* ids, float* logprobs) {
  __shared__ float highest_of[kSampleWarps];
  __shared__ double sum_of[kSampleWarps];
  const std::int64_t valid = valid_of[blockIdx.x];
  const float* row = logits + static_cast<std::int64_t>(blockIdx.x) * vocab;
  const int warp = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;

  const std::int64_t tiles = (valid + kLanes - 1) / kLanes;
  const std::int64_t tiles_a_warp = (tiles + kSampleWarps - 1) / kSampleWarps;
  const std::int64_t first = warp * tiles_a_warp * kLanes;
  const std::int64_t begin = first < valid ? first : valid;
  const std::int64_t stop = begin + tiles_a_warp * kLanes;
  const std::int64_t end = stop < valid ? stop : valid;

  float highest = -INFINITY;
  for (std::int64_t id = begin + lane; id < end; id += kLanes) highest = fmaxf(highest, row[id]);
  highest = warp_max(highest);
  if (lane == 0) highest_of[warp] = highest;
  __syncthreads();
  for (int other = 0; other < kSampleWarps; ++other) highest = fmaxf(highest, highest_of[other]);

  double sum = 0;
  for (std::int64_t id = begin + lane; id < end; id += kLanes) sum += probability(row[id], highest);
  sum = warp_sum(sum);
  if (lane == 0) sum_of[warp] = sum;
  __syncthreads();

  double total = 0;
  for (int other = 0; other < kSampleWarps; ++other) total += sum_of[other];
  if (!isfinite(total) || !isfinite(highest)) {  // NaN, or no id has any probability
    if (threadIdx.x == 0) {
      ids[blockIdx.x] = -1;
      logprobs[blockIdx.x] = NAN;
    }
    return;
  }

  const double target = static_cast<double>(uniforms[blockIdx.x]) * total;
  double below = 0;
  int chosen = -1;
  int last_with_mass = 0;
  for (int other = 0; other < kSampleWarps && chosen < 0; ++other) {
    if (sum_of[other] > 0) last_with_mass = other;
    if (below + sum_of[other] > target) {
      chosen = other;
    } else {
      below += sum_of[other];
    }
  }
  if (chosen < 0) {  // target == total after rounding
    chosen = last_with_mass;
    below -= sum_of[chosen];
  }
  if (warp != chosen) return;

  std::int64_t picked = -1;
  for (std::int64_t tile = begin; tile < end && picked < 0; tile += kLanes) {
    const std::int64_t id = tile + lane;
    const double mass = id < end ? probability(row[id], highest) : 0;
    const double cumulated = below + warp_inclusive_scan(mass, lane);
    const unsigned beyond = __ballot_sync(kAllLanes, mass > 0 && cumulated > target);
    if (beyond != 0) picked = tile + __ffs(static_cast<int>(beyond)) - 1;
    below = __shfl_sync(kAllLanes, cumulated, kLanes - 1);
  }
  if (picked < 0) {  // the walk's rounding fell short of the chunk's sum: its last possible id
    for (std::int64_t tile = begin; tile < end; tile += kLanes) {
      const std::int64_t id = tile + lane;
      const unsigned possible =
          __ballot_sync(kAllLanes, id < end && probability(row[id], highest) > 0);
      if (possible != 0) picked = tile + kLanes - 1 - __clz(static_cast<int>(possible));
    }
  }
  if (lane == 0) {
    ids[blockIdx.x] = static_cast<std::int32_t>(picked);
    logprobs[blockIdx.x] =
        static_cast<float>(static_cast<double>(row[picked]) - highest - log(total));
  }
}

}  // namespace rollcall::cuda
