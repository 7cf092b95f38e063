// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/cpu_kernels.h"
#include "model/cpu_vector.h"

// Products with packed weights, for the files that are compiled once per instruction set: hence the
// unnamed namespace.
namespace rollcall {
namespace {

// How far ahead weights are asked for: the few hundred instructions that a processor looks ahead by
// itself take less time than an access to main memory.
constexpr std::int64_t kPrefetchedSteps = 48;

template <class Element>
ROLLCALL_INLINE void prefetch_step(const Element* panel, std::int64_t step) {
  const Element* row = panel + step * kPanelWidth;
  __builtin_prefetch(row);
  __builtin_prefetch(row + kPanelWidth / 2);
}

// What a block of rows asks for besides, into the second cache level: its share of the next panel,
// so that main memory delivers it while the blocks of this panel compute, not during the first of
// them alone.
struct NextPanel {
  const char* share;
  std::int64_t bytes_a_step;
  ROLLCALL_INLINE void prefetch(std::int64_t step) const {
    __builtin_prefetch(share + step * bytes_a_step, 0, 2);
  }
};

// The rounding error of a sum grows with the additions that a term goes through: this many terms
// are summed by themselves before they join the total.
constexpr std::int64_t kSummedInputs = 64;
template <class Element>
constexpr std::int64_t kSummedSteps = kSummedInputs / kInputsAStep<Element>;

template <int kRows>
struct Sums {
  Vec columns[kRows][2] = {};
};

// Rows that share a load of weights: as many as registers allow for their sums. The weights of a
// pair take registers of their own, a float32 one can be an operand in memory.
template <class Element>
constexpr int kLinearRows = kRegisterBytes == 64   ? 12
                            : kRegisterBytes == 32 ? 3
                                                   : 1;
template <>
constexpr int kLinearRows<BFloat16Pair> = kRegisterBytes == 64   ? 12
                                          : kRegisterBytes == 32 ? 2
                                                                 : 1;

// Where the inputs of a block's rows lie: row after row, or step after step as in a panel.
enum class Order { kRows, kSteps };

template <Order kOrder, class Element>
ROLLCALL_INLINE Element input_of(const Element* x, std::int64_t ldx, int row, std::int64_t step) {
  return kOrder == Order::kRows ? x[row * ldx + step] : x[step * kPanelWidth + row];
}

// Sixteen columns of a panel's step, and what an input of it adds to their sums.
ROLLCALL_INLINE Vec half_step(const float* panel) { return load(panel); }
ROLLCALL_INLINE void add_product(Vec& sum, float a, Vec w) { sum += a * w; }

#if defined(__AVX512BF16__)
ROLLCALL_INLINE PairRegister half_step(const BFloat16Pair* panel) {
  return *reinterpret_cast<const PairRegisterUnaligned*>(panel);
}

// VDPBF16PS adds the product of the odd elements and then that of the even ones, each rounded once
// (Intel 64 and IA-32 manual, volume 2): the additions of the other instruction sets in their
// order. Not by its intrinsic, on which clang 16 crashes.
ROLLCALL_INLINE void add_product(Vec& sum, BFloat16Pair a, PairRegister w) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum.part[0]) : "v"(PairRegister{} + a), "v"(w));
}
#endif

// Adds x[r, k] * w[k] for the steps [begin, end), at most kSummedSteps of them.
template <Order kOrder, int kRows, class Element>
ROLLCALL_INLINE void add_steps(const Element* x, std::int64_t ldx, const Element* panel,
                               const NextPanel& next, std::int64_t begin, std::int64_t end,
                               Sums<kRows>& sum) {
  for (std::int64_t k = begin; k < end; ++k) {
    prefetch_step(panel, k + kPrefetchedSteps);
    next.prefetch(k);
    const auto left = half_step(panel + k * kPanelWidth);
    const auto right = half_step(panel + k * kPanelWidth + kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Element a = input_of<kOrder>(x, ldx, r, k);
      add_product(sum.columns[r][0], a, left);
      add_product(sum.columns[r][1], a, right);
    }
  }
}

#if !defined(__AVX512BF16__)

// Inputs of some steps of a block, widened once for both halves of the panel.
template <Order kOrder, int kRows>
class WideInputs {
 public:
  ROLLCALL_INLINE WideInputs(const BFloat16Pair* x, std::int64_t ldx, std::int64_t begin,
                             std::int64_t steps) {
    if constexpr (kOrder == Order::kRows) {
      const std::int64_t whole = steps / kPartLanes * kPartLanes;
      for (int r = 0; r < kRows; ++r) {
        const BFloat16Pair* from = x + r * ldx + begin;
        for (std::int64_t k = 0; k < whole; k += kPartLanes) put(r * kSteps + k, from + k);
        for (std::int64_t k = whole; k < steps; ++k) {
          even_[r * kSteps + k] = __builtin_bit_cast(float, from[k] << 16);
          odd_[r * kSteps + k] = __builtin_bit_cast(float, from[k] & 0xffff0000U);
        }
      }
    } else {
      for (std::int64_t k = 0; k < steps; ++k)
        for (std::int64_t r = 0; r < kRows; r += kPartLanes)
          put(k * kLanes + r, x + (begin + k) * kPanelWidth + r);
    }
  }

  ROLLCALL_INLINE float even(int row, std::int64_t step) const { return even_[at(row, step)]; }
  ROLLCALL_INLINE float odd(int row, std::int64_t step) const { return odd_[at(row, step)]; }

 private:
  static constexpr std::int64_t kSteps = kSummedSteps<BFloat16Pair>;

  static ROLLCALL_INLINE std::int64_t at(int row, std::int64_t step) {
    return kOrder == Order::kRows ? row * kSteps + step : step * kLanes + row;
  }
  ROLLCALL_INLINE void put(std::int64_t at, const BFloat16Pair* pairs) {
    *reinterpret_cast<RegisterUnaligned*>(even_ + at) = even_part_of(pairs);
    *reinterpret_cast<RegisterUnaligned*>(odd_ + at) = odd_part_of(pairs);
  }

  float even_[kSteps * kLanes], odd_[kSteps * kLanes];
};

template <Order kOrder, int kRows>
ROLLCALL_INLINE void add_steps(const BFloat16Pair* x, std::int64_t ldx, const BFloat16Pair* panel,
                               const NextPanel& next, std::int64_t begin, std::int64_t end,
                               Sums<kRows>& sum) {
  const WideInputs<kOrder, kRows> inputs(x, ldx, begin, end - begin);
  for (std::int64_t k = begin; k < end; ++k) {
    prefetch_step(panel, k + kPrefetchedSteps);
    next.prefetch(k);
    const BFloat16Pair* row = panel + k * kPanelWidth;
    Vec left = widened(row, odd_part_of), right = widened(row + kLanes, odd_part_of);
    for (int r = 0; r < kRows; ++r) {
      sum.columns[r][0] += inputs.odd(r, k - begin) * left;
      sum.columns[r][1] += inputs.odd(r, k - begin) * right;
    }
    left = widened(row, even_part_of), right = widened(row + kLanes, even_part_of);
    for (int r = 0; r < kRows; ++r) {
      sum.columns[r][0] += inputs.even(r, k - begin) * left;
      sum.columns[r][1] += inputs.even(r, k - begin) * right;
    }
  }
}

#endif

// Where a block's sums go: `columns` outputs of each row of y.
struct BlockOutput {
  const float* bias;  // null: none
  float* y;
  std::int64_t ldy, columns;
  bool add;
};

template <int kRows>
ROLLCALL_INLINE void put_sums(const Sums<kRows>& total, const BlockOutput& out) {
  for (int r = 0; r < kRows; ++r) {
    for (int half = 0; half < 2; ++half) {
      const std::int64_t left = out.columns - half * kLanes;
      const std::int64_t count = left < 0 ? 0 : left > kLanes ? kLanes : left;
      float* to = out.y + r * out.ldy + half * kLanes;
      Vec v = total.columns[r][half];
      if (out.bias != nullptr && count > 0) v += load_partial(out.bias + half * kLanes, count);
      if (count == kLanes) {
        store(to, out.add ? load(to) + v : v);
      } else {
        store_partial(to, out.add ? load_partial(to, count) + v : v, count);
      }
    }
  }
}

// Not inlined: blocks of different sizes in one function would spill each other's registers.
template <Order kOrder, int kRows, class Element>
__attribute__((noinline)) void linear_block(const Element* x, std::int64_t ldx,
                                            const Element* panel, NextPanel next,
                                            std::int64_t steps, const BlockOutput& out) {
  Sums<kRows> total;
  for (std::int64_t k = 0; k < steps; k += kSummedSteps<Element>) {
    Sums<kRows> sum;
    const std::int64_t left = steps - k;
    add_steps<kOrder>(x, ldx, panel, next, k,
                      left < kSummedSteps<Element> ? steps : k + kSummedSteps<Element>, sum);
    for (int r = 0; r < kRows; ++r) {
      total.columns[r][0] += sum.columns[r][0];
      total.columns[r][1] += sum.columns[r][1];
    }
  }
  put_sums(total, out);
}

// Calls linear_block for `rows`, of 1 to kMost.
template <Order kOrder, int kMost, class Element>
inline void linear_rows(std::int64_t rows, const Element* x, std::int64_t ldx, const Element* panel,
                        const NextPanel& next, std::int64_t steps, const BlockOutput& out) {
  if constexpr (kMost > 1) {
    if (rows < kMost) return linear_rows<kOrder, kMost - 1>(rows, x, ldx, panel, next, steps, out);
  }
  linear_block<kOrder, kMost>(x, ldx, panel, next, steps, out);
}

// The next of the parts that divide `left` evenly, none above `most`: a part costs a pass over the
// weights, however small it is.
inline std::int64_t even_part(std::int64_t left, std::int64_t most) {
  const std::int64_t parts = (left + most - 1) / most;
  return (left + parts - 1) / parts;
}

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// VDPBF16PS takes numbers below 2^-126 for zero and gives none: for as long as this lives, so do
// all other instructions.
class WithoutSubnormals {
 public:
#if defined(__x86_64__)
  WithoutSubnormals() : before_(__builtin_ia32_stmxcsr()) {
    __builtin_ia32_ldmxcsr(before_ | kFlushToZero | kDenormalsAreZeros);
  }
  ~WithoutSubnormals() { __builtin_ia32_ldmxcsr(before_); }
  WithoutSubnormals(const WithoutSubnormals&) = delete;
  WithoutSubnormals& operator=(const WithoutSubnormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZeros = 0x40;
  unsigned before_;
#endif
};

template <class Element>
void linear(const LinearCall<Element>& c) {
  constexpr int kMost = kLinearRows<Element>;
  static_assert(kProductRows % kMost == 0);
  const std::int64_t steps = panel_steps<Element>(c.in);
  for (std::int64_t first = 0, end = 0; first < c.rows; first = end) {
    end = first + even_part((c.rows - first + kMost - 1) / kMost, kProductRows / kMost) * kMost;
    end = least(end, c.rows);
    const std::int64_t blocks = (end - first + kMost - 1) / kMost;
    constexpr std::int64_t kStepBytes = kPanelWidth * sizeof(Element);
    for (std::int64_t column = 0; column < c.out; column += kPanelWidth) {
      const Element* panel = c.packed + column * steps;
      // A block alone runs through the panels as fast as they come. Behind the last one lies what
      // the caller is likely to ask for next.
      const std::int64_t bytes_a_step = blocks > 1 ? (kStepBytes + blocks - 1) / blocks : 0;
      NextPanel next{reinterpret_cast<const char*>(panel + kPanelWidth * steps), bytes_a_step};
      for (std::int64_t r = first, count = 0; r < end; r += count) {
        count = even_part(end - r, kMost);
        const BlockOutput out{c.bias == nullptr ? nullptr : c.bias + column,
                              c.y + r * c.ldy + column, c.ldy, least(c.out - column, kPanelWidth),
                              c.add};
        linear_rows<Order::kRows, kMost>(count, c.x + r * c.ldx, c.ldx, panel, next, steps, out);
        next.share += steps * bytes_a_step;
      }
    }
  }
}

void linear_bfloat16(const LinearCall<BFloat16Pair>& c) {
  const WithoutSubnormals guard;
  linear(c);
}

template <class Element>
void outer(const OuterCall<Element>& c) {
  constexpr int kMost = kLinearRows<Element>;
  const std::int64_t steps = panel_steps<Element>(c.terms);
  for (std::int64_t column = 0; column < c.columns; column += kPanelWidth) {
    const Element* panel = c.b + column * steps;
    for (std::int64_t r = 0, count = 0; r < c.rows; r += count) {
      count = even_part(c.rows - r, kMost);
      const BlockOutput out{nullptr, c.y + r * c.ldy + column, c.ldy,
                            least(c.columns - column, kPanelWidth), /*add=*/true};
      linear_rows<Order::kSteps, kMost>(count, c.a + r, 0, panel, NextPanel{nullptr, 0}, steps,
                                        out);
    }
  }
}

void outer_bfloat16(const OuterCall<BFloat16Pair>& c) {
  const WithoutSubnormals guard;
  outer(c);
}

// The bits of a bfloat16 in the upper half of each lane: to nearest, ties to even; NaN stays NaN.
ROLLCALL_INLINE PairRegister rounded(Register x) {
  const auto bits = __builtin_bit_cast(PairRegister, x);
  const PairRegister nearest = bits + 0x7fffU + (bits >> 16 & 1U);
  return (bits & 0x7fffffffU) > 0x7f800000U ? bits | 0x400000U : nearest;
}

ROLLCALL_INLINE Register part_of(const float* p) {
  return *reinterpret_cast<const RegisterUnaligned*>(p);
}

ROLLCALL_INLINE void put_step(const float* first, const float*, float* to) {
  store(to, load(first));
  store(to + kLanes, load(first + kLanes));
}

ROLLCALL_INLINE void put_step(const float* first, const float* second, BFloat16Pair* to) {
  for (std::int64_t c = 0; c < kPanelWidth; c += kPartLanes)
    *reinterpret_cast<PairRegisterUnaligned*>(to + c) =
        rounded(part_of(first + c)) >> 16 | (rounded(part_of(second + c)) & 0xffff0000U);
}

template <class Element>
void pack_columns(const float* x, std::int64_t ldx, std::int64_t terms, std::int64_t columns,
                  Element* packed) {
  constexpr std::int64_t kStep = kInputsAStep<Element>;
  static constexpr float kZeros[kPanelWidth] = {};
  for (std::int64_t column = 0; column < columns; column += kPanelWidth) {
    const std::int64_t count = least(columns - column, kPanelWidth);
    float padded[kStep][kPanelWidth] = {};
    const auto row = [&](std::int64_t t) {
      const float* from = x + t * ldx + column;
      if (t >= terms) return kZeros;
      if (count == kPanelWidth) return from;
      float* to = padded[t % kStep];
      for (std::int64_t c = 0; c < count; ++c) to[c] = from[c];
      return static_cast<const float*>(to);
    };
    for (std::int64_t t = 0; t < terms; t += kStep, packed += kPanelWidth)
      put_step(row(t), row(t + kStep - 1), packed);
  }
}

void pack_pair_columns(const BFloat16Pair* x, std::int64_t ldx, std::int64_t terms,
                       std::int64_t columns, BFloat16Pair* packed) {
  constexpr std::int64_t kPairs = kPanelWidth / 2;
  static constexpr BFloat16Pair kZeros[kPairs] = {};
  for (std::int64_t column = 0; column < columns; column += kPanelWidth) {
    const std::int64_t pairs = least(columns - column + 1, kPanelWidth) / 2;
    BFloat16Pair padded[2][kPairs] = {};
    const auto row = [&](std::int64_t t) {
      const BFloat16Pair* from = x + t * ldx + column / 2;
      if (t >= terms) return kZeros;
      if (pairs == kPairs) return from;
      BFloat16Pair* to = padded[t % 2];
      for (std::int64_t i = 0; i < pairs; ++i) to[i] = from[i];
      return static_cast<const BFloat16Pair*>(to);
    };
    for (std::int64_t t = 0; t < terms; t += 2, packed += kPanelWidth) {
      const BFloat16Pair *first = row(t), *second = row(t + 1);
      for (std::int64_t i = 0; i < kPairs; ++i) {
        packed[2 * i] = (first[i] & 0xffffU) | second[i] << 16;
        packed[2 * i + 1] = first[i] >> 16 | (second[i] & 0xffff0000U);
      }
    }
  }
}

typedef std::uint64_t TwoLanes __attribute__((vector_size(kRegisterBytes)));
typedef std::uint32_t HalfRegister __attribute__((vector_size(kRegisterBytes / 2)));
typedef std::uint32_t HalfRegisterUnaligned
    __attribute__((vector_size(kRegisterBytes / 2), aligned(4)));

void round_inputs(const float* x, std::int64_t n, BFloat16Pair* pairs) {
  const std::int64_t whole = n / kPartLanes * kPartLanes;
  const auto put = [](const float* from, BFloat16Pair* to) {
    const auto two = __builtin_bit_cast(TwoLanes, rounded(part_of(from)));
    const TwoLanes pair = (two >> 16 & 0xffffU) | (two >> 32 & 0xffff0000U);
    *reinterpret_cast<HalfRegisterUnaligned*>(to) = __builtin_convertvector(pair, HalfRegister);
  };
  for (std::int64_t i = 0; i < whole; i += kPartLanes) put(x + i, pairs + i / 2);
  if (whole == n) return;
  float last[kPartLanes] = {};
  BFloat16Pair of_last[kPartLanes / 2];
  for (std::int64_t i = whole; i < n; ++i) last[i - whole] = x[i];
  put(last, of_last);
  for (std::int64_t i = whole; i < n; i += 2) pairs[i / 2] = of_last[(i - whole) / 2];
}

}  // namespace
}  // namespace rollcall
