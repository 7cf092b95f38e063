// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set with ROLLCALL_ISA set (CMakeLists.txt). No standard library
// templates here: an inline copy of one, compiled for AVX-512, could be linked into code that runs
// on a CPU without it.
#include "model/cpu_kernels.h"

#include <math.h>

#include "model/cpu_attention.h"
#include "model/cpu_vector.h"

namespace rollcall {
namespace {

// The weights of one input for the columns of a panel.
struct PanelRow {
  Vec left, right;
};

inline PanelRow panel_row(const float* panel, std::int64_t k) {
  return {load(panel + k * kPanelWidth), load(panel + k * kPanelWidth + kLanes)};
}

inline PanelRow panel_row(const BFloat16Pair* panel, std::int64_t k) {
  PanelRow row;
  for (int i = 0; i < kParts; ++i) {
    const PairRegister pairs =
        *reinterpret_cast<const PairRegisterUnaligned*>(panel + k * kLanes + i * kPartLanes);
    row.left.part[i] = __builtin_bit_cast(Register, pairs << 16);
    row.right.part[i] = __builtin_bit_cast(Register, pairs & 0xffff0000U);
  }
  return row;
}

// How far ahead weights are asked for: the few hundred instructions that a processor looks ahead by
// itself take less time than an access to main memory.
constexpr std::int64_t kPrefetchedInputs = 48;

template <class Weight>
inline void prefetch_row(const Weight* panel, std::int64_t k) {
  const Weight* row = panel + k * kPanelRow<Weight>;
  constexpr std::int64_t kLine = 64 / sizeof(Weight);
  for (std::int64_t i = 0; i < kPanelRow<Weight>; i += kLine) __builtin_prefetch(row + i);
}

// What a block of rows asks for besides, into the second cache level: its share of the next panel,
// so that main memory delivers it while the blocks of this panel compute, not during the first of
// them alone.
struct NextPanel {
  const char* share;
  std::int64_t bytes_an_input;
  void prefetch(std::int64_t k) const { __builtin_prefetch(share + k * bytes_an_input, 0, 2); }
};

// The rounding error of a sum grows with the additions that a term goes through: this many terms
// are summed by themselves before they join the total.
constexpr std::int64_t kSummedInputs = 64;

template <int kRows>
struct Sums {
  Vec columns[kRows][2] = {};
};

// Rows that share a load of weights: as many as registers allow for their sums. A bfloat16 row of a
// panel takes registers of its own, a float32 one can be an operand in memory.
template <class Weight>
constexpr int kLinearRows = kRegisterBytes == 64   ? 12
                            : kRegisterBytes == 32 ? 3
                                                   : 1;
template <>
constexpr int kLinearRows<BFloat16Pair> = kRegisterBytes == 64   ? 12
                                          : kRegisterBytes == 32 ? 2
                                                                 : 1;

// Adds x[r, k] * w[k] for the inputs [begin, end).
template <int kRows, class Weight>
inline void add_inputs(const float* x, std::int64_t ldx, const Weight* panel, const NextPanel& next,
                       std::int64_t begin, std::int64_t end, Sums<kRows>& total) {
  Sums<kRows> sum;
  for (std::int64_t k = begin; k < end; ++k) {
    prefetch_row(panel, k + kPrefetchedInputs);
    next.prefetch(k);
    const PanelRow w = panel_row(panel, k);
    for (int r = 0; r < kRows; ++r) {
      const float a = x[r * ldx + k];
      sum.columns[r][0] += a * w.left;
      sum.columns[r][1] += a * w.right;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    total.columns[r][0] += sum.columns[r][0];
    total.columns[r][1] += sum.columns[r][1];
  }
}

// Not inlined: blocks of different sizes in one function would spill each other's registers.
template <int kRows, class Weight>
__attribute__((noinline)) void linear_block(const float* x, std::int64_t ldx, const Weight* panel,
                                            NextPanel next, std::int64_t in, const float* bias,
                                            float* y, std::int64_t ldy, std::int64_t columns) {
  Sums<kRows> total;
  for (std::int64_t k = 0; k < in; k += kSummedInputs)
    add_inputs(x, ldx, panel, next, k, in - k < kSummedInputs ? in : k + kSummedInputs, total);
  for (int r = 0; r < kRows; ++r) {
    for (int half = 0; half < 2; ++half) {
      const std::int64_t left = columns - half * kLanes;
      const std::int64_t count = left < 0 ? 0 : left > kLanes ? kLanes : left;
      float* to = y + r * ldy + half * kLanes;
      Vec v = total.columns[r][half];
      if (bias != nullptr && count > 0) v += load_partial(bias + half * kLanes, count);
      if (count == kLanes) {
        store(to, v);
      } else {
        store_partial(to, v, count);
      }
    }
  }
}

// Calls linear_block for `rows`, of 1 to kMost.
template <int kMost, class Weight>
inline void linear_rows(const float* x, std::int64_t ldx, std::int64_t rows, const Weight* panel,
                        const NextPanel& next, std::int64_t in, const float* bias, float* y,
                        std::int64_t ldy, std::int64_t columns) {
  if constexpr (kMost > 1) {
    if (rows < kMost)
      return linear_rows<kMost - 1>(x, ldx, rows, panel, next, in, bias, y, ldy, columns);
  }
  linear_block<kMost>(x, ldx, panel, next, in, bias, y, ldy, columns);
}

// The next of the parts that divide `left` evenly, none above `most`: a part costs a pass over the
// weights, however small it is.
inline std::int64_t even_part(std::int64_t left, std::int64_t most) {
  const std::int64_t parts = (left + most - 1) / most;
  return (left + parts - 1) / parts;
}

template <class Weight>
void linear(const float* x, std::int64_t ldx, std::int64_t rows, const Weight* packed,
            std::int64_t in, std::int64_t out, std::int64_t first_panel, std::int64_t last_panel,
            const float* bias, float* y, std::int64_t ldy) {
  constexpr int kMost = kLinearRows<Weight>;
  constexpr std::int64_t kRowChunk = 192;  // of x, so that it stays in the second cache level
  static_assert(kRowChunk % kMost == 0);
  for (std::int64_t first = 0, end = 0; first < rows; first = end) {
    end = first + even_part((rows - first + kMost - 1) / kMost, kRowChunk / kMost) * kMost;
    if (end > rows) end = rows;
    const std::int64_t blocks = (end - first + kMost - 1) / kMost;
    constexpr std::int64_t kRowBytes = kPanelRow<Weight> * sizeof(Weight);
    for (std::int64_t p = first_panel; p < last_panel; ++p) {
      const std::int64_t column = p * kPanelWidth;
      const std::int64_t columns = out - column < kPanelWidth ? out - column : kPanelWidth;
      const Weight* panel = packed + p * kPanelRow<Weight> * in;
      // A block alone runs through the panels as fast as they come.
      const std::int64_t bytes_an_input =
          blocks > 1 && p + 1 < last_panel ? (kRowBytes + blocks - 1) / blocks : 0;
      NextPanel next{reinterpret_cast<const char*>(panel + kPanelRow<Weight> * in), bytes_an_input};
      for (std::int64_t r = first, count = 0; r < end; r += count) {
        count = even_part(end - r, kMost);
        linear_rows<kMost>(x + r * ldx, ldx, count, panel, next, in,
                           bias == nullptr ? nullptr : bias + column, y + r * ldy + column, ldy,
                           columns);
        next.share += in * bytes_an_input;
      }
    }
  }
}

void rms_norm(const float* x, const float* weight, std::int64_t rows, std::int64_t n, float eps,
              float* y, float* rstd) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t r = 0; r < rows; ++r, x += n, y += n) {
    Vec squares{};
    for (std::int64_t i = 0; i < whole; i += kLanes) squares += load(x + i) * load(x + i);
    const Vec tail = load_partial(x + whole, n - whole);
    squares += tail * tail;
    const float scale = 1.0f / sqrtf(horizontal_sum(squares) / static_cast<float>(n) + eps);
    for (std::int64_t i = 0; i < whole; i += kLanes)
      store(y + i, (load(x + i) * scale) * load(weight + i));
    for (std::int64_t i = whole; i < n; ++i) y[i] = (x[i] * scale) * weight[i];
    if (rstd != nullptr) rstd[r] = scale;
  }
}

void rms_norm_gradient(const float* x, const float* weight, const float* rstd, const float* dy,
                       std::int64_t rows, std::int64_t n, float* dx, float* dweight) {
  const std::int64_t whole = n / kLanes * kLanes, left = n - whole;
  for (std::int64_t r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
    const float scale = rstd[r];
    Vec products = load_partial(dy + whole, left) * load_partial(weight + whole, left) *
                   (load_partial(x + whole, left) * scale);
    for (std::int64_t i = 0; i < whole; i += kLanes)
      products += load(dy + i) * load(weight + i) * (load(x + i) * scale);
    const float mean = horizontal_sum(products) / static_cast<float>(n);
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      const Vec d = load(dy + i), normed = load(x + i) * scale;
      store(dx + i, (d * load(weight + i) - normed * mean) * scale);
      store(dweight + i, load(dweight + i) + d * normed);
    }
    for (std::int64_t i = whole; i < n; ++i) {
      const float normed = x[i] * scale;
      dx[i] = (dy[i] * weight[i] - normed * mean) * scale;
      dweight[i] += dy[i] * normed;
    }
  }
}

void rope(float* x, std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
          const float* cosine, const float* sine) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t r = 0; r < rows; ++r, cosine += half, sine += half) {
    for (std::int64_t h = 0; h < heads; ++h, x += head_dim) {
      for (std::int64_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
      }
    }
  }
}

inline Vec silu(Vec x) { return x / (1.0f + exp(-x)); }

void silu_mul(const float* gate, const float* up, std::int64_t n, float* y) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes)
    store(y + i, silu(load(gate + i)) * load(up + i));
  const std::int64_t left = n - whole;
  store_partial(y + whole, silu(load_partial(gate + whole, left)) * load_partial(up + whole, left),
                left);
}

struct SiluMulGradient {
  Vec gate, up;
};

inline SiluMulGradient gradient_of(Vec gate, Vec up, Vec dy) {
  const Vec s = 1.0f / (1.0f + exp(-gate)), d = dy * s;
  return {d * up * (1.0f + gate * (1.0f - s)), d * gate};
}

void silu_mul_gradient(const float* gate, const float* up, const float* dy, std::int64_t n,
                       float* dgate, float* dup) {
  const std::int64_t whole = n / kLanes * kLanes, left = n - whole;
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const SiluMulGradient d = gradient_of(load(gate + i), load(up + i), load(dy + i));
    store(dgate + i, d.gate);
    store(dup + i, d.up);
  }
  const SiluMulGradient d =
      gradient_of(load_partial(gate + whole, left), load_partial(up + whole, left),
                  load_partial(dy + whole, left));
  store_partial(dgate + whole, d.gate, left);
  store_partial(dup + whole, d.up, left);
}

// Calls each(i, e, count) with e = exp(logits[i..] - highest) of `count` lanes.
template <class Each>
inline float logsumexp_of(const float* logits, std::int64_t n, const Each& each) {
  const std::int64_t whole = n / kLanes * kLanes;
  Vec highest = splat(kMinusInfinity);
  for (std::int64_t i = 0; i < whole; i += kLanes) highest = max(highest, load(logits + i));
  float top = horizontal_max(highest);
  for (std::int64_t i = whole; i < n; ++i) top = logits[i] > top ? logits[i] : top;
  Vec total{};
  for (std::int64_t i = 0; i < whole; i += kLanes) {
    const Vec e = exp(load(logits + i) - top);
    each(i, e, kLanes);
    total += e;
  }
  const Vec tail = exp(load_partial(logits + whole, n - whole) - top);
  each(whole, tail, n - whole);
  total += select(lanes_between(0, n - whole), tail, Vec{});
  return top + logf(horizontal_sum(total));
}

float logsumexp(const float* logits, std::int64_t n) {
  return logsumexp_of(logits, n, [](std::int64_t, Vec, std::int64_t) {});
}

// exp() ends at e^-87, also for minus infinity: what cannot be drawn is to be 0.
float exponentials(const float* logits, std::int64_t n, float* e) {
  const Vec least = splat(2e-38f);
  return logsumexp_of(logits, n, [&](std::int64_t i, Vec values, std::int64_t count) {
    const Vec possible = select(values > least, values, Vec{});
    if (count == kLanes) return store(e + i, possible);
    store_partial(e + i, possible, count);
  });
}

void softmax(const float* logits, std::int64_t n, float lse, float* p) {
  const std::int64_t whole = n / kLanes * kLanes;
  for (std::int64_t i = 0; i < whole; i += kLanes) store(p + i, exp(load(logits + i) - lse));
  store_partial(p + whole, exp(load_partial(logits + whole, n - whole) - lse), n - whole);
}

}  // namespace

#define ROLLCALL_JOIN_(a, b) a##b
#define ROLLCALL_JOIN(a, b) ROLLCALL_JOIN_(a, b)
#define ROLLCALL_TEXT_(a) #a
#define ROLLCALL_TEXT(a) ROLLCALL_TEXT_(a)

extern const CpuKernels ROLLCALL_JOIN(kKernels_, ROLLCALL_ISA);
const CpuKernels ROLLCALL_JOIN(kKernels_, ROLLCALL_ISA) = {ROLLCALL_TEXT(ROLLCALL_ISA),
                                                           linear<float>,
                                                           linear<BFloat16Pair>,
                                                           rms_norm,
                                                           rms_norm_gradient,
                                                           rope,
                                                           silu_mul,
                                                           silu_mul_gradient,
                                                           attention,
                                                           attention_gradient,
                                                           logsumexp,
                                                           exponentials,
                                                           softmax};

}  // namespace rollcall
