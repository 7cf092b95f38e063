// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a decoder does between its matrix products. Sums are float32, and each has one fixed order:
// a row's numbers depend on nothing but the row. `Number` is how weights, the inputs of products,
// keys and values are stored: float or BFloat16.

#include <cstdint>

#include "model/cuda/grid.h"
#include "model/cuda/number.h"

namespace rollcall::cuda {

constexpr int kLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kNormThreads = 256;
constexpr int kHeadWarps = 4;  // of a block that turns heads
constexpr int kPagePositions = 32;

__device__ inline float warp_sum(float value) {
  for (int step = kLanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

__device__ inline float warp_max(float value) {
  for (int step = kLanes / 2; step > 0; step /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// x [rows, width] = the tokens' rows of `table`. One block a row.
template <class Number>
__global__ void embed(const std::int32_t* tokens, const Number* table, std::int32_t width,
                      float* x) {
  const std::int64_t row = blockIdx.x;
  const Number* from = table + static_cast<std::int64_t>(tokens[row]) * width;
  for (std::int32_t i = threadIdx.x; i < width; i += blockDim.x)
    x[row * width + i] = to_float(from[i]);
}

// Row to[i] of `out` (row i, where `to` is null) = row from[i] of x, plus that of `delta` unless it
// is null. One block an i.
static __global__ void move_rows(const float* x, const float* delta, const std::int32_t* from,
                                 const std::int32_t* to, std::int32_t width, float* out) {
  const std::int64_t source = static_cast<std::int64_t>(from[blockIdx.x]) * width;
  const std::int64_t target =
      static_cast<std::int64_t>(to == nullptr ? blockIdx.x : to[blockIdx.x]) * width;
  for (std::int32_t i = threadIdx.x; i < width; i += blockDim.x)
    out[target + i] = x[source + i] + (delta == nullptr ? 0.0f : delta[source + i]);
}

// The residual stream takes up `delta` [rows, width] and `bias` [width], either of which may be
// null, and y = RMSNorm(x) * weight. One block of kNormThreads a row; with `rows`, of row
// rows[block] of x, which then stays as it is.
template <class Number>
__global__ void add_and_norm(float* x, const float* delta, const float* bias, const float* weight,
                             float eps, std::int32_t width, const std::int32_t* rows, Number* y) {
  __shared__ float part[kNormThreads / kLanes];
  const std::int64_t from = rows == nullptr ? blockIdx.x : rows[blockIdx.x];
  float* in = x + from * width;
  const auto sum_at = [&](std::int32_t i) {
    float value = in[i];
    if (delta != nullptr) value += delta[from * width + i];
    if (bias != nullptr) value += bias[i];
    return value;
  };
  float squares = 0;
  for (std::int32_t i = threadIdx.x; i < width; i += kNormThreads) {
    const float value = sum_at(i);
    squares += value * value;
  }
  squares = warp_sum(squares);
  if (threadIdx.x % kLanes == 0) part[threadIdx.x / kLanes] = squares;
  __syncthreads();
  float total = 0;
  for (int warp = 0; warp < kNormThreads / kLanes; ++warp) total += part[warp];
  const float scale = rsqrtf(total / static_cast<float>(width) + eps);
  for (std::int32_t i = threadIdx.x; i < width; i += kNormThreads) {
    const float value = sum_at(i);
    if (rows == nullptr) in[i] = value;
    y[static_cast<std::int64_t>(blockIdx.x) * width + i] =
        from_float<Number>(value * scale * weight[i]);
  }
}

// Where a row's keys lie: positions below prefix_length in the pages of a cache that it shares, the
// others in those of its own. Both are places in a list of page numbers.
struct RowCache {
  std::int32_t prefix_length, prefix_pages, own_pages;
};

struct HeadShape {
  std::int32_t heads, kv_heads, dim;
};

// A layer's pages [pages, 2, kv_heads, kPagePositions, dim], keys first.
template <class Number>
__device__ Number* cached(Number* pages, const HeadShape& shape, const std::int32_t* lists,
                          const RowCache& row, std::int32_t position, std::int32_t kv_head,
                          bool value) {
  const bool shared = position < row.prefix_length;
  const std::int32_t at = shared ? position : position - row.prefix_length;
  const std::int32_t list = shared ? row.prefix_pages : row.own_pages;
  const std::int64_t page = lists[list + at / kPagePositions];
  const std::int64_t head = (page * 2 + (value ? 1 : 0)) * shape.kv_heads + kv_head;
  return pages + (head * kPagePositions + at % kPagePositions) * shape.dim;
}

template <class Number>
struct HeadInputs {
  const float* qkv;     // [rows, heads + 2 kv_heads, dim]: what the product gave
  const float* bias;    // [heads + 2 kv_heads, dim], or null
  const float* q_norm;  // [dim], or null; with it k_norm
  const float* k_norm;
  float eps;
  const float* cosine;  // [positions, dim / 2], or null: nothing is rotated
  const float* sine;
  const std::int32_t* positions;  // [rows]
  const RowCache* caches;         // [rows]
  const std::int32_t* lists;
  float scale;    // of the scores, taken by the queries
  float* q;       // [rows, heads, dim]
  Number* pages;  // of the layer
};

// Bias, norm and rotation of queries, keys and values; queries go to q, keys and values into the
// cache. One warp a row's head.
template <class Number>
__global__ void turn_heads(HeadInputs<Number> in, HeadShape shape, std::int32_t rows) {
  const std::int32_t all = shape.heads + 2 * shape.kv_heads;
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kLanes;
  if (item >= static_cast<std::int64_t>(rows) * all) return;
  const auto row = static_cast<std::int32_t>(item / all);
  const auto head = static_cast<std::int32_t>(item % all);
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  const bool query = head < shape.heads, value = head >= shape.heads + shape.kv_heads;
  const float* from = in.qkv + item * shape.dim;
  const float* bias = in.bias == nullptr ? nullptr : in.bias + head * shape.dim;
  const auto input = [&](std::int32_t i) { return from[i] + (bias == nullptr ? 0.0f : bias[i]); };

  const std::int32_t position = in.positions[row];
  const std::int32_t kv_head = value ? head - shape.heads - shape.kv_heads : head - shape.heads;
  Number* stored =
      query ? nullptr : cached(in.pages, shape, in.lists, in.caches[row], position, kv_head, value);
  float* q = in.q + (static_cast<std::int64_t>(row) * shape.heads + head) * shape.dim;
  const auto output = [&](std::int32_t i, float x) {
    if (query)
      q[i] = x * in.scale;
    else
      stored[i] = from_float<Number>(x);
  };
  if (value) {
    for (std::int32_t i = lane; i < shape.dim; i += kLanes) output(i, input(i));
    return;
  }
  const float* norm = query ? in.q_norm : in.k_norm;
  float scale = 1;
  if (norm != nullptr) {
    float squares = 0;
    for (std::int32_t i = lane; i < shape.dim; i += kLanes) squares += input(i) * input(i);
    scale = rsqrtf(warp_sum(squares) / static_cast<float>(shape.dim) + in.eps);
  }
  const auto normed = [&](std::int32_t i) {
    return norm == nullptr ? input(i) : input(i) * scale * norm[i];
  };
  const std::int32_t half = shape.dim / 2;
  for (std::int32_t i = lane; i < half; i += kLanes) {
    const float low = normed(i), high = normed(i + half);
    if (in.cosine == nullptr) {
      output(i, low);
      output(i + half, high);
      continue;
    }
    const std::int64_t angle = static_cast<std::int64_t>(position) * half + i;
    const float c = in.cosine[angle], s = in.sine[angle];
    output(i, low * c - high * s);
    output(i + half, high * c + low * s);
  }
}

// Consecutive rows of one sequence: they read the same keys and values.
struct Tile {
  std::int32_t first_row, rows;
};

constexpr int kAttentionWarps = 4;
constexpr int kWarpQueries = 4;  // that a warp of the attention holds
constexpr int kBlockQueries = kAttentionWarps * kWarpQueries;
constexpr int kChunkKeys = kLanes;  // keys that a block reads at once
constexpr int kMostDim = 256;

// Rows of one sequence that a tile may have.
__host__ __device__ inline std::int32_t tile_rows(const HeadShape& shape) {
  const std::int32_t group = shape.heads / shape.kv_heads;
  return group >= kBlockQueries ? 1 : kBlockQueries / group;
}

// What a block needs: queries, a chunk of keys and values, and the chunk's probabilities. A row of
// the chunk is two numbers longer than a head, so that lanes that read one column meet other banks.
template <class Number>
__host__ __device__ inline std::size_t attention_bytes(const HeadShape& shape) {
  return static_cast<std::size_t>(kBlockQueries) * (shape.dim + kChunkKeys) * sizeof(float) +
         2ull * kChunkKeys * (shape.dim + 2) * sizeof(Number);
}

// A query's sum over some of its keys: the highest score, the sum of exp(score - highest), and the
// values in these proportions. Shares of one query are put together by merge_shares.
struct Share {
  float highest, sum;
};

template <class Number>
struct AttentionInputs {
  const float* q;                 // [rows, heads, dim], scaled
  const Number* pages;            // of the layer
  const std::int32_t* positions;  // [rows]
  const RowCache* caches;         // [rows]
  const std::int32_t* lists;
  const Tile* tiles;
  std::int32_t window;  // keys that a query sees, its own included; 0: all before it
  // With one split the result, [rows, heads, dim]; else null, and the shares are left in
  // shares [rows, heads, splits] and values [rows, heads, splits, dim].
  Number* out;
  Share* shares;
  float* values;
};

// Attention of a tile's rows for the heads that share a kv head, over one of gridDim.z equal
// stretches of their keys, by online softmax (FlashAttention, 2205.14135; split as flash decoding).
// Grid [tiles, kv_heads, splits], kAttentionWarps warps. A lane has kDims dimensions at most: known
// to the compiler, so that sums stay in registers.
template <class Number, int kDims>
__global__ void attend(AttentionInputs<Number> in, HeadShape shape) {
  const Tile tile = in.tiles[blockIdx.x];
  const auto kv_head = static_cast<std::int32_t>(blockIdx.y);
  const std::int32_t group = shape.heads / shape.kv_heads, dim = shape.dim;
  const int lane = static_cast<int>(threadIdx.x % kLanes);
  const int warp = static_cast<int>(threadIdx.x / kLanes);

  auto* queries = reinterpret_cast<float*>(block_memory());
  float* weights = queries + kBlockQueries * dim;  // [kBlockQueries, kChunkKeys]
  auto* keys = reinterpret_cast<Number*>(weights + kBlockQueries * kChunkKeys);
  Number* values = keys + kChunkKeys * (dim + 2);

  const std::int32_t last = in.positions[tile.first_row + tile.rows - 1] + 1;
  const std::int32_t first_seen = in.positions[tile.first_row] + 1 - in.window;
  const std::int32_t first = in.window > 0 && first_seen > 0 ? first_seen : 0;
  // Whole chunks, so that a split's keys do not depend on what the grid was made for.
  const std::int32_t chunks = (last - first + kChunkKeys - 1) / kChunkKeys;
  const auto splits = static_cast<std::int32_t>(gridDim.z);
  const std::int32_t chunks_a_split = (chunks + splits - 1) / splits;
  const std::int32_t begin =
      first + static_cast<std::int32_t>(blockIdx.z) * chunks_a_split * kChunkKeys;
  const std::int32_t stop = begin + chunks_a_split * kChunkKeys;
  const std::int32_t end = stop < last ? stop : last;
  const RowCache cache = in.caches[tile.first_row];

  // A group larger than a block takes several passes over its heads.
  for (std::int32_t done = 0; done < group; done += kBlockQueries) {
    const std::int32_t heads = group - done < kBlockQueries ? group - done : kBlockQueries;
    const std::int32_t count = tile.rows * heads;
    const auto row_of = [&](std::int32_t query) { return tile.first_row + query / heads; };
    const auto item_of = [&](std::int32_t query) {
      return static_cast<std::int64_t>(row_of(query)) * shape.heads + kv_head * group + done +
             query % heads;
    };
    __syncthreads();
    for (std::int32_t i = threadIdx.x; i < count * dim; i += blockDim.x)
      queries[i] = in.q[item_of(i / dim) * dim + i % dim];

    float highest[kWarpQueries], sum[kWarpQueries], mixed[kWarpQueries][kDims];
    ROLLCALL_UNROLL for (int j = 0; j < kWarpQueries; ++j) {
      highest[j] = -INFINITY;
      sum[j] = 0;
      ROLLCALL_UNROLL for (int i = 0; i < kDims; ++i) mixed[j][i] = 0;
    }
    for (std::int32_t chunk = begin; chunk < end; chunk += kChunkKeys) {
      __syncthreads();
      for (int key = warp; key < kChunkKeys; key += kAttentionWarps) {
        const std::int32_t position = chunk + key;
        const bool there = position < end;
        const Number* k =
            there ? cached(in.pages, shape, in.lists, cache, position, kv_head, false) : nullptr;
        const Number* v =
            there ? cached(in.pages, shape, in.lists, cache, position, kv_head, true) : nullptr;
        for (std::int32_t i = lane; i < dim; i += kLanes) {
          keys[key * (dim + 2) + i] = there ? k[i] : from_float<Number>(0);
          values[key * (dim + 2) + i] = there ? v[i] : from_float<Number>(0);
        }
      }
      __syncthreads();
      ROLLCALL_UNROLL for (int j = 0; j < kWarpQueries; ++j) {
        const std::int32_t query = j * kAttentionWarps + warp;
        if (query >= count) continue;
        const std::int32_t own = in.positions[row_of(query)], position = chunk + lane;
        const bool seen =
            position < end && position <= own && (in.window == 0 || position > own - in.window);
        float score = 0;
        for (std::int32_t i = 0; i < dim; ++i)
          score += queries[query * dim + i] * to_float(keys[lane * (dim + 2) + i]);
        score = seen ? score : -INFINITY;
        const float now = fmaxf(highest[j], warp_max(score));
        // None of the chunk is seen, nor was any before. A score of NaN is seen, and stays.
        if (!__any_sync(kAllLanes, seen) && highest[j] == -INFINITY) {
          weights[query * kChunkKeys + lane] = 0;
          continue;
        }
        const float weight = seen ? expf(score - now) : 0.0f;
        const float kept = expf(highest[j] - now);
        weights[query * kChunkKeys + lane] = weight;
        sum[j] = sum[j] * kept + warp_sum(weight);
        highest[j] = now;
        ROLLCALL_UNROLL for (int i = 0; i < kDims; ++i) mixed[j][i] *= kept;
      }
      __syncwarp();
      for (int key = 0; key < kChunkKeys; ++key) {
        ROLLCALL_UNROLL for (int i = 0; i < kDims; ++i) {
          const std::int32_t at = i * kLanes + lane;
          const float value = at < dim ? to_float(values[key * (dim + 2) + at]) : 0.0f;
          ROLLCALL_UNROLL for (int j = 0; j < kWarpQueries; ++j) {
            const std::int32_t query = j * kAttentionWarps + warp;
            if (query < count) mixed[j][i] += weights[query * kChunkKeys + key] * value;
          }
        }
      }
    }
    ROLLCALL_UNROLL for (int j = 0; j < kWarpQueries; ++j) {
      const std::int32_t query = j * kAttentionWarps + warp;
      if (query >= count) continue;
      const std::int64_t item = item_of(query);
      const std::int64_t share = item * splits + blockIdx.z;
      if (in.out == nullptr && lane == 0) in.shares[share] = {highest[j], sum[j]};
      ROLLCALL_UNROLL for (int i = 0; i < kDims; ++i) {
        const std::int32_t at = i * kLanes + lane;
        if (at >= dim) continue;
        if (in.out != nullptr)
          in.out[item * dim + at] = from_float<Number>(mixed[j][i] / sum[j]);
        else
          in.values[share * dim + at] = mixed[j][i];
      }
    }
  }
}

// out [items, dim] from the shares of each item (a row's head). One warp an item.
template <class Number>
__global__ void merge_shares(const Share* shares, const float* values, std::int32_t splits,
                             std::int32_t items, std::int32_t dim, Number* out) {
  const std::int64_t item =
      static_cast<std::int64_t>(blockIdx.x) * kHeadWarps + threadIdx.x / kLanes;
  if (item >= items) return;
  float highest = -INFINITY, sum = 0;
  for (std::int32_t s = 0; s < splits; ++s)
    highest = fmaxf(highest, shares[item * splits + s].highest);
  for (std::int32_t s = 0; s < splits; ++s) {
    const Share share = shares[item * splits + s];
    if (share.sum != 0) sum += share.sum * expf(share.highest - highest);
  }
  for (std::int32_t i = threadIdx.x % kLanes; i < dim; i += kLanes) {
    float mixed = 0;
    for (std::int32_t s = 0; s < splits; ++s) {
      const Share share = shares[item * splits + s];
      if (share.sum != 0)
        mixed += values[(item * splits + s) * dim + i] * expf(share.highest - highest);
    }
    out[item * dim + i] = from_float<Number>(mixed / sum);
  }
}

// y [rows, width] = silu(gate) * up, of gate_up [rows, 2 width] and its bias, which may be null.
// One block a row.
template <class Number>
__global__ void silu_mul(const float* gate_up, const float* bias, std::int32_t width, Number* y) {
  const float* row = gate_up + static_cast<std::int64_t>(blockIdx.x) * 2 * width;
  for (std::int32_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float gate = row[i] + (bias == nullptr ? 0.0f : bias[i]);
    const float up = row[width + i] + (bias == nullptr ? 0.0f : bias[width + i]);
    y[static_cast<std::int64_t>(blockIdx.x) * width + i] =
        from_float<Number>(gate / (1.0f + expf(-gate)) * up);
  }
}

}  // namespace rollcall::cuda
