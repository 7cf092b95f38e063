// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "comms/error.h"
#include "model/cpu_kernels.h"

namespace rollcall {

extern const CpuKernels kKernels_generic, kKernels_avx2, kKernels_avx512;

namespace {

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// To nearest, ties to even. NaN and infinity are kept out of weights before.
std::uint32_t bfloat16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// One row of a panel, 32 columns.
void put_row(const float* columns, float* to) { std::copy_n(columns, kPanelWidth, to); }

void put_row(const float* columns, BFloat16Pair* to) {
  for (std::int64_t c = 0; c < kPanelWidth / 2; ++c)
    to[c] = bfloat16_bits(columns[c]) | bfloat16_bits(columns[c + kPanelWidth / 2]) << 16;
}

void get_row(const float* from, float* columns) { std::copy_n(from, kPanelWidth, columns); }

void get_row(const BFloat16Pair* from, float* columns) {
  for (std::int64_t c = 0; c < kPanelWidth / 2; ++c) {
    columns[c] = std::bit_cast<float>(from[c] << 16);
    columns[c + kPanelWidth / 2] = std::bit_cast<float>(from[c] & 0xffff0000);
  }
}

// Inputs transposed at a time: with a panel's width a square that stays in the first-level cache.
constexpr std::int64_t kSquare = 32;
using Square = std::array<std::array<float, kPanelWidth>, kSquare>;  // [input][column]

template <class Weight>
void pack_panel(const float* w, std::int64_t columns, std::int64_t in, Weight* to) {
  Square square{};
  for (std::int64_t first = 0; first < in; first += kSquare) {
    const std::int64_t count = std::min(kSquare, in - first);
    for (std::int64_t c = 0; c < columns; ++c)
      for (std::int64_t k = 0; k < count; ++k) square[k][c] = w[c * in + first + k];
    for (std::int64_t k = 0; k < count; ++k, to += kPanelRow<Weight>) put_row(square[k].data(), to);
  }
}

// Columns [begin, end) of a panel.
template <class Weight>
void unpack_panel(const Weight* from, std::int64_t in, std::int64_t begin, std::int64_t end,
                  float* w) {
  Square square;
  for (std::int64_t first = 0; first < in; first += kSquare) {
    const std::int64_t count = std::min(kSquare, in - first);
    for (std::int64_t k = 0; k < count; ++k, from += kPanelRow<Weight>)
      get_row(from, square[k].data());
    for (std::int64_t c = begin; c < end; ++c)
      for (std::int64_t k = 0; k < count; ++k) w[(c - begin) * in + first + k] = square[k][c];
  }
}

template <class Weight>
void pack_panels(const float* w, std::int64_t out, std::int64_t in, Weight* packed) {
  for (std::int64_t p = 0; p < panel_count(out); ++p)
    pack_panel(w + p * kPanelWidth * in, std::min(kPanelWidth, out - p * kPanelWidth), in,
               packed + p * kPanelRow<Weight> * in);
}

template <class Weight>
void unpack_panels(const Weight* packed, std::int64_t in, std::int64_t first, std::int64_t last,
                   float* w) {
  for (std::int64_t row = first; row < last;) {
    const std::int64_t panel = row / kPanelWidth, begin = row % kPanelWidth;
    const std::int64_t end = std::min(kPanelWidth, last - panel * kPanelWidth);
    unpack_panel(packed + panel * kPanelRow<Weight> * in, in, begin, end, w + (row - first) * in);
    row += end - begin;
  }
}

constexpr char kKernelsVariable[] = "ROLLCALL_KERNELS";

// Seconds of a linear layer that stays in the second cache level.
double seconds_of(const CpuKernels& kernels) {
  constexpr std::int64_t kRows = 24, kIn = 384, kOut = 384;
  static const std::vector<float> x(kRows * kIn, 1), panels(kIn * kOut, 1);
  std::vector<float> y(kRows * kOut);
  const auto begin = std::chrono::steady_clock::now();
  kernels.linear(x.data(), kIn, kRows, panels.data(), kIn, kOut, 0, panel_count(kOut), nullptr,
                 y.data(), kOut);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Wider vectors slow some processors' clock down, and some compute them in halves. As both give the
// same bits, a measurement may decide: a few milliseconds, the best of several turns each.
const CpuKernels& faster(const CpuKernels& wide, const CpuKernels& narrow) {
  constexpr int kTurns = 9;
  constexpr double kClearly = 0.95;
  double of_wide = seconds_of(wide), of_narrow = seconds_of(narrow);
  for (int turn = 0; turn < kTurns; ++turn) {
    of_wide = std::min(of_wide, seconds_of(wide));
    of_narrow = std::min(of_narrow, seconds_of(narrow));
  }
  return of_narrow < kClearly * of_wide ? narrow : wide;
}

const CpuKernels& chosen_kernels() {
  const char* asked = std::getenv(kKernelsVariable);
  if (asked == nullptr || *asked == '\0') {
    if (has_avx512()) return faster(kKernels_avx512, kKernels_avx2);
    return has_avx2() ? kKernels_avx2 : kKernels_generic;
  }
  if (const CpuKernels* kernels = cpu_kernels(asked)) return *kernels;
  throw input_error(
      std::string(kKernelsVariable) + " asks for '" + asked + "', and this CPU has no such kernels",
      "unset it, or set it to avx512, avx2 or generic, as the CPU allows");
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& kernels = chosen_kernels();
  return kernels;
}

// MKL's strict mode (oneMKL developer guide, "Conditional Numerical Reproducibility"): it has one
// for Intel's processors alone. On others its products showed no such difference.
void fix_order_of_sums() {
  if (!__builtin_cpu_is("intel")) return;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
  ::setenv("MKL_CBWR", avx512 ? "AVX512,STRICT" : "AVX2,STRICT", 0);
}

const CpuKernels* cpu_kernels(const char* isa) {
  const std::string_view name = isa;
  if (name == kKernels_avx512.isa) return has_avx512() ? &kKernels_avx512 : nullptr;
  if (name == kKernels_avx2.isa) return has_avx2() ? &kKernels_avx2 : nullptr;
  return name == kKernels_generic.isa ? &kKernels_generic : nullptr;
}

void pack_weights(const float* w, std::int64_t out, std::int64_t in, float* packed) {
  pack_panels(w, out, in, packed);
}

void pack_weights(const float* w, std::int64_t out, std::int64_t in, BFloat16Pair* packed) {
  pack_panels(w, out, in, packed);
}

void unpack_weights(const float* packed, std::int64_t in, std::int64_t first, std::int64_t last,
                    float* w) {
  unpack_panels(packed, in, first, last, w);
}

void unpack_weights(const BFloat16Pair* packed, std::int64_t in, std::int64_t first,
                    std::int64_t last, float* w) {
  unpack_panels(packed, in, first, last, w);
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
