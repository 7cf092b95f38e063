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

extern const CpuKernels kKernels_generic, kKernels_avx2, kKernels_avx512, kKernels_avx512bf16;

namespace {

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// One step of a panel: the rows of its inputs, one or two, 32 columns each.
void get_step(const float* from, float* first, float*) { std::copy_n(from, kPanelWidth, first); }

void get_step(const BFloat16Pair* from, float* first, float* second) {
  for (std::int64_t c = 0; c < kPanelWidth; ++c) {
    first[c] = std::bit_cast<float>(from[c] << 16);
    second[c] = std::bit_cast<float>(from[c] & 0xffff0000);
  }
}

using Four = float __attribute__((vector_size(16)));
using FourUnaligned = float __attribute__((vector_size(16), aligned(4)));

// to[j * to_row + i] = from[i * from_row + j] for i < rows, j < columns; four by four where it
// goes.
void transpose(const float* from, std::int64_t from_row, std::int64_t rows, std::int64_t columns,
               float* to, std::int64_t to_row) {
  const auto row = [&](std::int64_t i, std::int64_t j) -> Four {
    return *reinterpret_cast<const FourUnaligned*>(from + i * from_row + j);
  };
  const std::int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (std::int64_t i = 0; i < whole_rows; i += 4) {
    for (std::int64_t j = 0; j < whole_columns; j += 4) {
      const Four a = row(i, j), b = row(i + 1, j), c = row(i + 2, j), d = row(i + 3, j);
      const Four low_ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
      const Four low_cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
      const Four high_ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
      const Four high_cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
      const auto put = [&](std::int64_t k, Four values) {
        *reinterpret_cast<FourUnaligned*>(to + (j + k) * to_row + i) = values;
      };
      put(0, __builtin_shufflevector(low_ab, low_cd, 0, 1, 4, 5));
      put(1, __builtin_shufflevector(low_ab, low_cd, 2, 3, 6, 7));
      put(2, __builtin_shufflevector(high_ab, high_cd, 0, 1, 4, 5));
      put(3, __builtin_shufflevector(high_ab, high_cd, 2, 3, 6, 7));
    }
  }
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[j * to_row + i] = from[i * from_row + j];
}

// Inputs transposed at a time: with a panel's width a square that stays in the first-level cache.
constexpr std::int64_t kSquare = 32;
using Square = std::array<std::array<float, kPanelWidth>, kSquare>;  // [input][column]

// The row of a step's second input; of float32, which has one, its first.
template <class Element>
constexpr std::int64_t kSecond = kInputsAStep<Element> - 1;

// Rows as the steps of a panel; the end of what was written.
float* pack_rows(const Square& rows, std::int64_t count, float* to) {
  cpu_kernels().pack_columns(rows[0].data(), kPanelWidth, count, kPanelWidth, to);
  return to + kPanelWidth * panel_steps<float>(count);
}

BFloat16Pair* pack_rows(const Square& rows, std::int64_t count, BFloat16Pair* to) {
  cpu_kernels().pack_columns_bfloat16(rows[0].data(), kPanelWidth, count, kPanelWidth, to);
  return to + kPanelWidth * panel_steps<BFloat16Pair>(count);
}

template <class Element>
void pack_panel(const float* w, std::int64_t columns, std::int64_t in, Element* to) {
  Square square{};
  for (std::int64_t first = 0; first < in; first += kSquare) {
    const std::int64_t count = std::min(kSquare, in - first);
    transpose(w + first, in, columns, count, square[0].data(), kPanelWidth);
    to = pack_rows(square, count, to);
  }
}

// Outputs [begin, end) of a panel, inputs [first_in, last_in), which begin a step: w [out, ldw].
template <class Element>
void unpack_panel(const Element* panel, std::int64_t first_in, std::int64_t last_in,
                  std::int64_t begin, std::int64_t end, float* w, std::int64_t ldw) {
  constexpr std::int64_t kStep = kInputsAStep<Element>;
  Square square;
  const Element* from = panel + first_in / kStep * kPanelWidth;
  for (std::int64_t first = first_in; first < last_in; first += kSquare) {
    const std::int64_t count = std::min(kSquare, last_in - first);
    for (std::int64_t k = 0; k < count; k += kStep, from += kPanelWidth)
      get_step(from, square[k].data(), square[k + kSecond<Element>].data());
    transpose(square[0].data() + begin, kPanelWidth, count, end - begin, w + first - first_in, ldw);
  }
}

template <class Element>
void pack_panels(const float* w, std::int64_t out, std::int64_t in, Element* packed) {
  for (std::int64_t first = 0; first < out; first += kPanelWidth)
    pack_panel(w + first * in, std::min(kPanelWidth, out - first), in,
               packed + first * panel_steps<Element>(in));
}

template <class Element>
void unpack_panels(const Element* packed, std::int64_t in, std::int64_t first, std::int64_t last,
                   float* w) {
  for (std::int64_t row = first; row < last;) {
    const std::int64_t panel = row / kPanelWidth, begin = row % kPanelWidth;
    const std::int64_t end = std::min(kPanelWidth, last - panel * kPanelWidth);
    unpack_panel(packed + panel * kPanelWidth * panel_steps<Element>(in), 0, in, begin, end,
                 w + (row - first) * in, in);
    row += end - begin;
  }
}

template <class Element>
void transpose_to(const Element* packed, std::int64_t in, std::int64_t first, std::int64_t last,
                  std::int64_t panel, Element* to) {
  const std::int64_t begin = panel * kPanelWidth, end = std::min(in, begin + kPanelWidth);
  Square rows{};  // [output][input]
  for (std::int64_t out = first; out < last; out += kPanelWidth) {
    const std::int64_t count = std::min(kPanelWidth, last - out);
    unpack_panel(packed + out * panel_steps<Element>(in), begin, end, 0, count, rows[0].data(),
                 kPanelWidth);
    to = pack_rows(rows, count, to);
  }
}

constexpr char kKernelsVariable[] = "ROLLCALL_KERNELS";

// Seconds of a linear layer that stays in the second cache level.
template <class Element>
double seconds_of(void (*linear)(const LinearCall<Element>&)) {
  constexpr std::int64_t kRows = 24, kIn = 384, kOut = 384, kSteps = panel_steps<Element>(kIn);
  static const std::vector<Element> x(kRows * kSteps), panels(kSteps * kOut);
  std::vector<float> y(kRows * kOut);
  const auto begin = std::chrono::steady_clock::now();
  linear({.x = x.data(),
          .ldx = kSteps,
          .rows = kRows,
          .packed = panels.data(),
          .in = kIn,
          .out = kOut,
          .y = y.data(),
          .ldy = kOut});
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

template <class Element>
double best_seconds_of(void (*linear)(const LinearCall<Element>&)) {
  constexpr int kTurns = 10;
  double best = seconds_of(linear);
  for (int turn = 1; turn < kTurns; ++turn) best = std::min(best, seconds_of(linear));
  return best;
}

// Wider vectors slow some processors' clock down, for about a millisecond, and some compute them in
// halves. As both give the same bits, a measurement of a few milliseconds may decide.
bool clearly_faster(double narrow, double wide) { return narrow < 0.95 * wide; }

CpuKernels fastest_kernels() {
  if (!has_avx2()) return kKernels_generic;
  if (!has_avx512()) return kKernels_avx2;
  const CpuKernels& narrow = kKernels_avx2;  // first, at its own clock
  const CpuKernels& wide = has_avx512_bf16() ? kKernels_avx512bf16 : kKernels_avx512;
  const double narrow_float = best_seconds_of(narrow.linear);
  const double narrow_bfloat16 = best_seconds_of(narrow.linear_bfloat16);
  const bool narrow_floats = clearly_faster(narrow_float, best_seconds_of(wide.linear));
  CpuKernels chosen = narrow_floats ? narrow : wide;
  const bool narrow_pairs = clearly_faster(narrow_bfloat16, best_seconds_of(wide.linear_bfloat16));
  chosen.linear_bfloat16 = (narrow_pairs ? narrow : wide).linear_bfloat16;
  chosen.outer_bfloat16 = (narrow_pairs ? narrow : wide).outer_bfloat16;
  if (narrow_pairs != narrow_floats) {
    static const std::string both =
        std::string(chosen.isa) + ", " + (narrow_pairs ? narrow : wide).isa + " for bfloat16";
    chosen.isa = both.c_str();
  }
  return chosen;
}

CpuKernels chosen_kernels() {
  const char* asked = std::getenv(kKernelsVariable);
  if (asked == nullptr || *asked == '\0') return fastest_kernels();
  if (const CpuKernels* kernels = cpu_kernels(asked)) return *kernels;
  throw input_error(
      std::string(kKernelsVariable) + " asks for '" + asked + "', and this CPU has no such kernels",
      "unset it, or set it to avx512bf16, avx512, avx2 or generic, as the CPU allows");
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels kernels = chosen_kernels();
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
  if (name == kKernels_avx512bf16.isa) return has_avx512_bf16() ? &kKernels_avx512bf16 : nullptr;
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

void transpose_panel(const float* packed, std::int64_t in, std::int64_t first, std::int64_t last,
                     std::int64_t panel, float* transposed) {
  transpose_to(packed, in, first, last, panel, transposed);
}

void transpose_panel(const BFloat16Pair* packed, std::int64_t in, std::int64_t first,
                     std::int64_t last, std::int64_t panel, BFloat16Pair* transposed) {
  transpose_to(packed, in, first, last, panel, transposed);
}

void store_key(const AttentionShape& shape, std::int64_t position, const float* key, float* keys) {
  float* block = keys + position / kKeyBlock * shape.key_block<float>() + position % kKeyBlock;
  for (std::int64_t i = 0; i < shape.kv_heads * shape.head_dim; ++i) block[i * kKeyBlock] = key[i];
}

void store_key_value(const AttentionShape& shape, std::int64_t position, const float* key,
                     const float* value, float* keys, float* values) {
  store_key(shape, position, key, keys);
  float* row = values + position * shape.value_row<float>();
  for (std::int64_t h = 0; h < shape.kv_heads; ++h)
    std::copy_n(value + h * shape.head_dim, shape.head_dim, row + h * shape.value_head<float>());
}

void store_key_value(const AttentionShape& shape, std::int64_t position, const float* key,
                     const float* value, BFloat16Pair* keys, BFloat16Pair* values) {
  const auto round = cpu_kernels().round_inputs;
  const std::int64_t d = shape.head_dim;
  BFloat16Pair* block =
      keys + position / kKeyBlock * shape.key_block<BFloat16Pair>() + position % kKeyBlock;
  BFloat16Pair* row = values + position * shape.value_row<BFloat16Pair>();
  for (std::int64_t h = 0; h < shape.kv_heads; ++h, key += d, value += d) {
    for (std::int64_t i = 0; i < d; i += 32, row += 16) {
      const std::int64_t count = std::min<std::int64_t>(32, d - i);
      std::array<BFloat16Pair, 16> pairs{};
      round(key + i, count, pairs.data());
      for (std::int64_t pair = 0; pair < count / 2; ++pair, block += kKeyBlock)
        *block = pairs[static_cast<std::size_t>(pair)];
      pairs = {};
      round(value + i, count, pairs.data());
      for (std::size_t lane = 0; lane < 16; ++lane) {
        const std::size_t low = lane / 2, high = low + 8;
        row[lane] = lane % 2 == 0 ? (pairs[low] & 0xffff) | pairs[high] << 16
                                  : pairs[low] >> 16 | (pairs[high] & 0xffff0000);
      }
    }
  }
}

}  // namespace rollcall
