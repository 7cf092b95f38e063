// SPDX-License-Identifier: Apache-2.0
// Compiled once per instruction set with ROLLCALL_ISA set (CMakeLists.txt). No standard library
// templates here: an inline copy of one, compiled for AVX-512, could be linked into code that runs
// on a CPU without it.
#include "model/cpu_kernels.h"

#include <math.h>

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
inline void add_inputs(const float* x, std::int64_t ldx, const Weight* panel, std::int64_t begin,
                       std::int64_t end, Sums<kRows>& total) {
  Sums<kRows> sum;
  for (std::int64_t k = begin; k < end; ++k) {
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
                                            std::int64_t in, const float* bias, float* y,
                                            std::int64_t ldy, std::int64_t columns) {
  Sums<kRows> total;
  for (std::int64_t k = 0; k < in; k += kSummedInputs)
    add_inputs(x, ldx, panel, k, in - k < kSummedInputs ? in : k + kSummedInputs, total);
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

template <int kRows, class Weight>
void linear_rows(const float* x, std::int64_t ldx, std::int64_t rows, const Weight* panel,
                 std::int64_t in, const float* bias, float* y, std::int64_t ldy,
                 std::int64_t columns) {
  std::int64_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    linear_block<kRows>(x + r * ldx, ldx, panel, in, bias, y + r * ldy, ldy, columns);
  if constexpr (kRows > 1) {
    if (r < rows)
      linear_rows<kRows / 2>(x + r * ldx, ldx, rows - r, panel, in, bias, y + r * ldy, ldy,
                             columns);
  }
}

template <class Weight>
void linear(const float* x, std::int64_t ldx, std::int64_t rows, const Weight* packed,
            std::int64_t in, std::int64_t out, std::int64_t first_panel, std::int64_t last_panel,
            const float* bias, float* y, std::int64_t ldy) {
  constexpr std::int64_t kRowChunk = 96;  // of x, so that it stays in the first cache levels
  for (std::int64_t r = 0; r < rows; r += kRowChunk) {
    const std::int64_t count = rows - r < kRowChunk ? rows - r : kRowChunk;
    for (std::int64_t p = first_panel; p < last_panel; ++p) {
      const std::int64_t column = p * kPanelWidth;
      const std::int64_t columns = out - column < kPanelWidth ? out - column : kPanelWidth;
      linear_rows<kLinearRows<Weight>>(x + r * ldx, ldx, count, packed + p * kPanelRow<Weight> * in,
                                       in, bias == nullptr ? nullptr : bias + column,
                                       y + r * ldy + column, ldy, columns);
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

constexpr float kMinusInfinity = -__builtin_inff();

// The lanes of a block whose positions are in [first, length).
inline Mask visible_lanes(std::int64_t block, std::int64_t first, std::int64_t length) {
  return lanes_between(first - block * kKeyBlock, length - block * kKeyBlock);
}

// Positions of a view in the scores of one head: whole blocks, those that a window hides left out.
inline std::int64_t first_block(const KeyValueView& view) { return view.first / kKeyBlock; }
inline std::int64_t score_columns(const KeyValueView& view) {
  if (view.first >= view.length) return 0;
  return (key_blocks(view.length) - first_block(view)) * kKeyBlock;
}

// Scores of kGroup heads that share a kv head against the score_columns() of one stretch.
template <int kGroup>
void score_stretch(const float* query, const KeyValueView& view, std::int64_t kv_head,
                   const AttentionShape& shape, float* scores, std::int64_t stride, Vec* highest) {
  const std::int64_t begin = first_block(view), end = begin + score_columns(view) / kKeyBlock;
  for (std::int64_t b = begin; b < end; ++b, scores += kKeyBlock) {
    const float* keys =
        view.keys + b * shape.key_block_floats() + kv_head * shape.head_dim * kKeyBlock;
    Vec sum[kGroup] = {};
    for (std::int64_t i = 0; i < shape.head_dim; ++i) {
      const Vec k = load(keys + i * kKeyBlock);
      for (int h = 0; h < kGroup; ++h) sum[h] += query[h * shape.head_dim + i] * k;
    }
    const Mask visible = visible_lanes(b, view.first, view.length);
    for (int h = 0; h < kGroup; ++h) {
      const Vec s = select(visible, sum[h] * shape.scale, splat(kMinusInfinity));
      highest[h] = max(highest[h], s);
      store(scores + h * stride, s);
    }
  }
}

// Adds probability * value of one stretch for 16 dimensions of kGroup heads.
template <int kGroup>
void mix_stretch(const float* probabilities, std::int64_t stride, const KeyValueView& view,
                 const AttentionShape& shape, std::int64_t offset, Vec* sum) {
  const std::int64_t row = shape.value_row_floats();
  const float* value = view.values + view.first * row + offset;
  const std::int64_t hidden_columns = first_block(view) * kKeyBlock;
  for (std::int64_t j = view.first; j < view.length; ++j, value += row) {
    const Vec v = load(value);
    const float* column = probabilities + (j - hidden_columns);
    for (int h = 0; h < kGroup; ++h) sum[h] += column[h * stride] * v;
  }
}

template <int kGroup>
void attend_heads(const AttentionRow& row, std::int64_t first_head, const AttentionShape& shape,
                  float* scores) {
  const std::int64_t d = shape.head_dim;
  const std::int64_t kv_head = first_head / (shape.heads / shape.kv_heads);
  const std::int64_t prefix_columns = score_columns(row.prefix);
  const std::int64_t stride = prefix_columns + score_columns(row.own);
  const float* query = row.query + first_head * d;
  Vec highest[kGroup];
  for (int h = 0; h < kGroup; ++h) highest[h] = splat(kMinusInfinity);
  score_stretch<kGroup>(query, row.prefix, kv_head, shape, scores, stride, highest);
  float* own_scores = scores + prefix_columns;
  score_stretch<kGroup>(query, row.own, kv_head, shape, own_scores, stride, highest);

  float scale[kGroup];
  for (int h = 0; h < kGroup; ++h) {
    const float top = horizontal_max(highest[h]);
    Vec total{};
    for (std::int64_t i = 0; i < stride; i += kLanes) {
      const Vec s = load(scores + h * stride + i);
      const Vec e = select(s > splat(kMinusInfinity), exp(s - top), Vec{});
      total += e;
      store(scores + h * stride + i, e);
    }
    const float sum = horizontal_sum(total);
    scale[h] = 1.0f / sum;
    if (row.lse != nullptr) row.lse[first_head + h] = top + logf(sum);
  }
  for (std::int64_t i = 0; i < d; i += kLanes) {
    Vec sum[kGroup] = {};
    const std::int64_t offset = kv_head * shape.padded_head_dim() + i;
    mix_stretch<kGroup>(scores, stride, row.prefix, shape, offset, sum);
    mix_stretch<kGroup>(own_scores, stride, row.own, shape, offset, sum);
    for (int h = 0; h < kGroup; ++h) {
      float* to = row.out + (first_head + h) * d + i;
      const Vec v = sum[h] * scale[h];
      if (d - i >= kLanes) {
        store(to, v);
      } else {
        store_partial(to, v, d - i);
      }
    }
  }
}

void attention(const AttentionRow* rows, std::int64_t count, const AttentionShape& shape,
               float* scratch) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (std::int64_t r = 0; r < count; ++r) {
    for (std::int64_t kv = 0; kv < shape.kv_heads; ++kv) {
      std::int64_t head = kv * group;
      const std::int64_t end = head + group;
      for (; head + 4 <= end; head += 4) attend_heads<4>(rows[r], head, shape, scratch);
      for (; head + 2 <= end; head += 2) attend_heads<2>(rows[r], head, shape, scratch);
      for (; head < end; ++head) attend_heads<1>(rows[r], head, shape, scratch);
    }
  }
}

// Probabilities and score gradients of one head's row, to scratch.
void gradient_scores(const AttentionGradientRow& row, std::int64_t head, std::int64_t kv_head,
                     const AttentionShape& shape, float* p, float* ds) {
  const std::int64_t d = shape.head_dim;
  const float *query = row.query + head * d, *dout = row.dout + head * d, *out = row.out + head * d;
  const std::int64_t blocks = key_blocks(row.length);
  for (std::int64_t b = row.first / kKeyBlock; b < blocks; ++b) {
    const std::int64_t offset = b * shape.key_block_floats() + kv_head * d * kKeyBlock;
    Vec score{}, gain{};
    for (std::int64_t i = 0; i < d; ++i) {
      score += query[i] * load(row.keys + offset + i * kKeyBlock);
      gain += dout[i] * (load(row.values + offset + i * kKeyBlock) - out[i]);
    }
    const Mask visible = visible_lanes(b, row.first, row.length);
    const Vec all = exp(score * shape.scale - row.lse[head]);
    const Vec probability = select(visible, all, Vec{});
    const Vec gradient = probability * gain * shape.scale;
    store(p + b * kKeyBlock, probability);
    store(ds + b * kKeyBlock, select(visible, gradient, Vec{}));
  }
}

// dQ += dS K, dK += dS^T Q, dV += P^T dO for `width` dimensions (at most 16) from `i` on.
template <bool kWhole>
void gradient_rows(const AttentionGradientRow& row, std::int64_t head, std::int64_t kv_head,
                   const AttentionShape& shape, std::int64_t i, std::int64_t width, const float* p,
                   const float* ds) {
  const auto get = [width](const float* from) {
    if constexpr (kWhole) return load(from);
    return load_partial(from, width);
  };
  const auto put = [width](float* to, Vec v) {
    if constexpr (kWhole) return store(to, v);
    return store_partial(to, v, width);
  };
  const std::int64_t stride = shape.kv_heads * shape.head_dim;
  const std::int64_t column = kv_head * shape.head_dim + i, at = head * shape.head_dim + i;
  const Vec query = get(row.query + at), dout = get(row.dout + at);
  Vec dquery = get(row.dquery + at);
  for (std::int64_t j = row.first; j < row.length; ++j) {
    const std::int64_t cell = j * stride + column;
    dquery += ds[j] * get(row.key_rows + cell);
    put(row.dkey_rows + cell, get(row.dkey_rows + cell) + ds[j] * query);
    put(row.dvalue_rows + cell, get(row.dvalue_rows + cell) + p[j] * dout);
  }
  put(row.dquery + at, dquery);
}

void attention_gradient(const AttentionGradientRow* rows, std::int64_t count, std::int64_t kv_head,
                        const AttentionShape& shape, float* scratch) {
  const std::int64_t group = shape.heads / shape.kv_heads, d = shape.head_dim;
  for (std::int64_t r = 0; r < count; ++r) {
    float* ds = scratch + key_blocks(rows[r].length) * kKeyBlock;
    for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      gradient_scores(rows[r], head, kv_head, shape, scratch, ds);
      std::int64_t i = 0;
      for (; i + kLanes <= d; i += kLanes)
        gradient_rows<true>(rows[r], head, kv_head, shape, i, kLanes, scratch, ds);
      if (i < d) gradient_rows<false>(rows[r], head, kv_head, shape, i, d - i, scratch, ds);
    }
  }
}

float logsumexp(const float* logits, std::int64_t n) {
  const std::int64_t whole = n / kLanes * kLanes;
  Vec highest = splat(kMinusInfinity);
  for (std::int64_t i = 0; i < whole; i += kLanes) highest = max(highest, load(logits + i));
  float top = horizontal_max(highest);
  for (std::int64_t i = whole; i < n; ++i) top = logits[i] > top ? logits[i] : top;
  Vec total{};
  for (std::int64_t i = 0; i < whole; i += kLanes) total += exp(load(logits + i) - top);
  const Vec tail = exp(load_partial(logits + whole, n - whole) - top);
  total += select(lanes_between(0, n - whole), tail, Vec{});
  return top + logf(horizontal_sum(total));
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
                                                           rope,
                                                           silu_mul,
                                                           attention,
                                                           attention_gradient,
                                                           logsumexp,
                                                           softmax};

}  // namespace rollcall
