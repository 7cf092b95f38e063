// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "model/cpu_kernels.h"

namespace rollcall {

extern const CpuKernels kKernels_generic, kKernels_avx2, kKernels_avx512;

const CpuKernels& cpu_kernels() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    return kKernels_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kKernels_avx2;
  return kKernels_generic;
}

void pack_weights(const float* w, std::int64_t out, std::int64_t in, float* packed) {
  for (std::int64_t panel = 0; panel < panel_count(out); ++panel) {
    const std::int64_t first = panel * kPanelWidth;
    const std::int64_t columns = std::min(kPanelWidth, out - first);
    float* to = packed + first * in;
    for (std::int64_t k = 0; k < in; ++k, to += kPanelWidth) {
      for (std::int64_t c = 0; c < columns; ++c) to[c] = w[(first + c) * in + k];
      std::fill(to + columns, to + kPanelWidth, 0.0f);
    }
  }
}

void unpack_weights(const float* packed, std::int64_t out, std::int64_t in, float* w) {
  constexpr std::int64_t kBlock =
      32;  // of inputs: with a panel's width a square that stays in the first-level cache
  for (std::int64_t first = 0; first < out; first += kPanelWidth) {
    const std::int64_t columns = std::min(kPanelWidth, out - first);
    for (std::int64_t begin = 0; begin < in; begin += kBlock) {
      const float* from = packed + first * in + begin * kPanelWidth;
      const std::int64_t count = std::min(kBlock, in - begin);
      for (std::int64_t c = 0; c < columns; ++c) {
        float* to = w + (first + c) * in + begin;
        for (std::int64_t k = 0; k < count; ++k) to[k] = from[k * kPanelWidth + c];
      }
    }
  }
}

void store_key_value(const AttentionShape& shape, std::int64_t position, const float* key,
                     const float* value, float* keys, float* values) {
  float* block = keys + position / kKeyBlock * shape.key_block_floats() + position % kKeyBlock;
  for (std::int64_t i = 0; i < shape.kv_heads * shape.head_dim; ++i) block[i * kKeyBlock] = key[i];
  float* row = values + position * shape.value_row_floats();
  for (std::int64_t h = 0; h < shape.kv_heads; ++h)
    std::copy_n(value + h * shape.head_dim, shape.head_dim, row + h * shape.padded_head_dim());
}

}  // namespace rollcall
