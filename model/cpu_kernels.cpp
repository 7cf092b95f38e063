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

constexpr float kMinusInfinity = -__builtin_inff();

// Sums that a loop of attention keeps in registers: enough of them to hide the latency of an
// addition.
constexpr int kAttentionSums = kRegisterBytes == 64 ? 16 : kRegisterBytes == 32 ? 4 : 2;
// Rows that share a load of a key or value.
constexpr int kTeamRows = kRegisterBytes == 64 ? 4 : kRegisterBytes == 32 ? 2 : 1;

constexpr int sums_for(int queries, int most) {
  const int sums = kAttentionSums / queries;
  return sums < 1 ? 1 : sums > most ? most : sums;
}

// The lanes of a block whose positions are in [first, length).
inline Mask visible_lanes(std::int64_t block, const KeyValueView& view) {
  return lanes_between(view.first - block * kKeyBlock, view.length - block * kKeyBlock);
}

// The blocks that hold what a view shows, and how many scores they take.
struct Blocks {
  std::int64_t begin = 0, end = 0;
  std::int64_t columns() const { return (end - begin) * kKeyBlock; }
};

inline Blocks blocks_of(const KeyValueView& view) {
  if (view.first >= view.length) return {};
  return {view.first / kKeyBlock, key_blocks(view.length)};
}

// The same keys and values, as far as any of the rows sees them.
inline KeyValueView join(KeyValueView a, const KeyValueView& b) {
  if (b.first < a.first) a.first = b.first;
  if (b.length > a.length) a.length = b.length;
  return a;
}

// Queries of rows and heads that share a kv head and have keys in common, and what becomes of them.
template <int kQueries>
struct Team {
  const float* query[kQueries];
  float* scores[kQueries];  // of the stretch at hand, then probabilities
  Vec highest[kQueries];
};

// Into the second cache level: it is wanted soon, and not at once.
inline void prefetch(const float* p) { __builtin_prefetch(p, 0, 2); }

// Scores of the blocks [b, blocks.end) of a stretch, of which query i sees views[i]. The keys at
// the same places of `ahead` are fetched meanwhile, unless it is null.
template <int kQueries, int kBlocks>
inline void score_blocks(Team<kQueries>& team, const KeyValueView* views, const float* ahead,
                         const Blocks& blocks, std::int64_t b, std::int64_t kv_head,
                         const AttentionShape& shape) {
  for (; b + kBlocks <= blocks.end; b += kBlocks) {
    const std::int64_t offset = b * shape.key_block_floats() + kv_head * shape.head_dim * kKeyBlock;
    const float* keys = views[0].keys + offset;
    Vec sum[kQueries][kBlocks] = {};
    for (std::int64_t i = 0; i < shape.head_dim; ++i) {
      if (ahead != nullptr) {
        for (int n = 0; n < kBlocks; ++n)
          prefetch(ahead + offset + n * shape.key_block_floats() + i * kKeyBlock);
      }
      Vec key[kBlocks];
      for (int n = 0; n < kBlocks; ++n)
        key[n] = load(keys + n * shape.key_block_floats() + i * kKeyBlock);
      for (int q = 0; q < kQueries; ++q) {
        const float x = team.query[q][i];
        for (int n = 0; n < kBlocks; ++n) sum[q][n] += x * key[n];
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int n = 0; n < kBlocks; ++n) {
        const Vec s =
            select(visible_lanes(b + n, views[q]), sum[q][n] * shape.scale, splat(kMinusInfinity));
        team.highest[q] = max(team.highest[q], s);
        store(team.scores[q] + (b + n - blocks.begin) * kKeyBlock, s);
      }
    }
  }
  if constexpr (kBlocks > 1)
    score_blocks<kQueries, kBlocks / 2>(team, views, ahead, blocks, b, kv_head, shape);
}

template <int kQueries>
void score_stretch(Team<kQueries>& team, const KeyValueView* views, const float* ahead,
                   const Blocks& blocks, std::int64_t kv_head, const AttentionShape& shape) {
  score_blocks<kQueries, sums_for(kQueries, 8)>(team, views, ahead, blocks, blocks.begin, kv_head,
                                                shape);
}

// Adds probability * value of one stretch for 16 * kWide dimensions; `ahead` as of the scores.
template <int kQueries, int kWide>
inline void mix_stretch(float* const* probabilities, const KeyValueView& view, const float* ahead,
                        const AttentionShape& shape, std::int64_t offset, Vec (*sum)[kWide]) {
  const std::int64_t row = shape.value_row_floats();
  const std::int64_t hidden_columns = blocks_of(view).begin * kKeyBlock;
  const float* value = view.values + view.first * row + offset;
  for (std::int64_t j = view.first; j < view.length; ++j, value += row) {
    if (ahead != nullptr) {
      for (int w = 0; w < kWide; ++w) prefetch(ahead + j * row + offset + w * kLanes);
    }
    Vec v[kWide];
    for (int w = 0; w < kWide; ++w) v[w] = load(value + w * kLanes);
    for (int q = 0; q < kQueries; ++q) {
      const float p = probabilities[q][j - hidden_columns];
      for (int w = 0; w < kWide; ++w) sum[q][w] += p * v[w];
    }
  }
}

// Rows [0, kRows) of kGroup heads; the rows have their prefix in common, or their own stretch, or
// both.
template <int kGroup, int kRows>
class HeadAttention {
 public:
  // Rows behind these, up to `end`, come next.
  HeadAttention(const AttentionRow* rows, const AttentionRow* end, std::int64_t first_head,
                const AttentionShape& shape, float* scratch)
      : rows_(rows),
        end_(end),
        first_head_(first_head),
        kv_head_(first_head / (shape.heads / shape.kv_heads)),
        shape_(shape),
        prefix_(rows[0].prefix),
        own_(rows[0].own) {
    for (int r = 1; r < kRows; ++r) {
      prefix_ = join(prefix_, rows[r].prefix);
      own_ = join(own_, rows[r].own);
      own_shared_ = own_shared_ && rows[r].own.keys == own_.keys;
    }
    for (int q = 0; q < kQueries; ++q) {
      const AttentionRow& row = rows[q / kGroup];
      prefix_views_[q] = row.prefix;
      own_views_[q] = row.own;
      team_.query[q] = row.query + (first_head + q % kGroup) * shape.head_dim;
      team_.highest[q] = splat(kMinusInfinity);
    }
    prefix_columns_ = blocks_of(prefix_).columns();
    stride_ = prefix_columns_ + blocks_of(own_).columns();
    for (int q = 0; q < kQueries; ++q) scores_[q] = scratch + q * stride_;
  }

  void run() {
    score();
    normalize();
    std::int64_t i = 0;
    constexpr int kWide = sums_for(kQueries, 4);
    for (; i + (kWide - 1) * kLanes < shape_.head_dim; i += kWide * kLanes) mix<kWide>(i);
    for (; i < shape_.head_dim; i += kLanes) mix<1>(i);
  }

 private:
  static constexpr int kQueries = kGroup * kRows;

  // That stretch of the row behind row r, if it is another one: sequences lie far from each other.
  KeyValueView ahead(int r, KeyValueView AttentionRow::*stretch) const {
    const AttentionRow* next = rows_ + r + 1;
    const bool other = next < end_ && (next->*stretch).keys != (rows_[r].*stretch).keys;
    return other ? next->*stretch : KeyValueView{};
  }

  void score() {
    for (int q = 0; q < kQueries; ++q) team_.scores[q] = scores_[q];
    score_stretch(team_, prefix_views_, ahead(kRows - 1, &AttentionRow::prefix).keys,
                  blocks_of(prefix_), kv_head_, shape_);
    for (int q = 0; q < kQueries; ++q) team_.scores[q] = scores_[q] + prefix_columns_;
    if (own_shared_)
      return score_stretch(team_, own_views_, ahead(kRows - 1, &AttentionRow::own).keys,
                           blocks_of(own_), kv_head_, shape_);
    for (int r = 0; r < kRows; ++r) {
      Team<kGroup> heads;
      for (int h = 0; h < kGroup; ++h) {
        heads.query[h] = team_.query[r * kGroup + h];
        heads.scores[h] = team_.scores[r * kGroup + h];
        heads.highest[h] = team_.highest[r * kGroup + h];
      }
      score_stretch(heads, own_views_ + r * kGroup, ahead(r, &AttentionRow::own).keys,
                    blocks_of(rows_[r].own), kv_head_, shape_);
      for (int h = 0; h < kGroup; ++h) team_.highest[r * kGroup + h] = heads.highest[h];
    }
  }

  void normalize() {
    for (int q = 0; q < kQueries; ++q) {
      const AttentionRow& row = rows_[q / kGroup];
      const std::int64_t columns =
          prefix_columns_ + blocks_of(own_shared_ ? own_ : row.own).columns();
      const float top = horizontal_max(team_.highest[q]);
      Vec total{};
      for (std::int64_t i = 0; i < columns; i += kLanes) {
        const Vec s = load(scores_[q] + i);
        const Vec e = select(s > splat(kMinusInfinity), exp(s - top), Vec{});
        total += e;
        store(scores_[q] + i, e);
      }
      const float sum = horizontal_sum(total);
      scale_[q] = 1.0f / sum;
      if (row.lse != nullptr) row.lse[first_head_ + q % kGroup] = top + logf(sum);
    }
  }

  template <int kWide>
  void mix(std::int64_t i) {
    Vec sum[kQueries][kWide] = {};
    const std::int64_t offset = kv_head_ * shape_.padded_head_dim() + i;
    mix_stretch<kQueries>(scores_, prefix_, ahead(kRows - 1, &AttentionRow::prefix).values, shape_,
                          offset, sum);
    if (own_shared_) {
      mix_stretch<kQueries>(team_.scores, own_, ahead(kRows - 1, &AttentionRow::own).values, shape_,
                            offset, sum);
    } else {
      for (int r = 0; r < kRows; ++r)
        mix_stretch<kGroup>(team_.scores + r * kGroup, rows_[r].own,
                            ahead(r, &AttentionRow::own).values, shape_, offset, sum + r * kGroup);
    }
    for (int q = 0; q < kQueries; ++q) {
      float* to = rows_[q / kGroup].out + (first_head_ + q % kGroup) * shape_.head_dim + i;
      for (int w = 0; w < kWide; ++w, to += kLanes) {
        const std::int64_t left = shape_.head_dim - i - w * kLanes;
        const Vec v = sum[q][w] * scale_[q];
        if (left >= kLanes) {
          store(to, v);
        } else {
          store_partial(to, v, left);
        }
      }
    }
  }

  const AttentionRow *rows_, *end_;
  std::int64_t first_head_, kv_head_;
  const AttentionShape& shape_;
  KeyValueView prefix_, own_;  // own_: if it is shared
  bool own_shared_ = true;
  KeyValueView prefix_views_[kQueries], own_views_[kQueries];
  std::int64_t prefix_columns_ = 0, stride_ = 0;
  float* scores_[kQueries];
  float scale_[kQueries];
  Team<kQueries> team_;
};

template <int kRows>
void attend_rows(const AttentionRow* rows, const AttentionRow* end_rows,
                 const AttentionShape& shape, float* scratch) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (std::int64_t kv = 0; kv < shape.kv_heads; ++kv) {
    std::int64_t head = kv * group;
    const std::int64_t end = head + group;
    for (; head + 4 <= end; head += 4)
      HeadAttention<4, kRows>(rows, end_rows, head, shape, scratch).run();
    for (; head + 2 <= end; head += 2)
      HeadAttention<2, kRows>(rows, end_rows, head, shape, scratch).run();
    for (; head < end; ++head) HeadAttention<1, kRows>(rows, end_rows, head, shape, scratch).run();
  }
}

// Whether all rows have the same prefix, and with it, or without any, a stretch to share.
inline bool share_keys(const AttentionRow* rows, int count) {
  bool own = true;
  for (int r = 1; r < count; ++r) {
    if (rows[r].prefix.keys != rows[0].prefix.keys) return false;
    own = own && rows[r].own.keys == rows[0].own.keys;
  }
  return own || rows[0].prefix.keys != nullptr;
}

void attention(const AttentionRow* rows, std::int64_t count, const AttentionShape& shape,
               float* scratch) {
  static_assert(kTeamRows <= kMostTeamRows);
  std::int64_t r = 0;
  while (r < count) {
    if (r + kTeamRows <= count && share_keys(rows + r, kTeamRows)) {
      attend_rows<kTeamRows>(rows + r, rows + count, shape, scratch);
      r += kTeamRows;
    } else {
      attend_rows<1>(rows + r, rows + count, shape, scratch);
      ++r;
    }
  }
}

// A row's head in the backward pass.
struct GradientQuery {
  const float *query, *dout, *out;  // [head_dim]
  float* dquery;
  float lse;
  KeyValueView view;  // keys and values blocked
  float *p, *ds;      // of all positions: probabilities and score gradients
};

// Probabilities and score gradients of the blocks [b, blocks.end).
template <int kQueries, int kBlocks>
inline void gradient_scores(const GradientQuery* queries, const Blocks& blocks, std::int64_t b,
                            std::int64_t kv_head, const AttentionShape& shape) {
  const std::int64_t d = shape.head_dim, block_floats = shape.key_block_floats();
  for (; b + kBlocks <= blocks.end; b += kBlocks) {
    const std::int64_t offset = b * block_floats + kv_head * d * kKeyBlock;
    const float *keys = queries[0].view.keys + offset, *values = queries[0].view.values + offset;
    Vec score[kQueries][kBlocks] = {}, gain[kQueries][kBlocks] = {};
    for (std::int64_t i = 0; i < d; ++i) {
      for (int n = 0; n < kBlocks; ++n) {
        const Vec key = load(keys + n * block_floats + i * kKeyBlock);
        const Vec value = load(values + n * block_floats + i * kKeyBlock);
        for (int q = 0; q < kQueries; ++q) {
          score[q][n] += queries[q].query[i] * key;
          gain[q][n] += queries[q].dout[i] * (value - queries[q].out[i]);
        }
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      for (int n = 0; n < kBlocks; ++n) {
        const Mask visible = visible_lanes(b + n, queries[q].view);
        const Vec all = exp(score[q][n] * shape.scale - queries[q].lse);
        const Vec probability = select(visible, all, Vec{});
        const Vec gradient = probability * gain[q][n] * shape.scale;
        store(queries[q].p + (b + n) * kKeyBlock, probability);
        store(queries[q].ds + (b + n) * kKeyBlock, select(visible, gradient, Vec{}));
      }
    }
  }
  if constexpr (kBlocks > 1)
    gradient_scores<kQueries, kBlocks / 2>(queries, blocks, b, kv_head, shape);
}

// dQ += dS K, dK += dS^T Q, dV += P^T dO for `width` dimensions (at most 16) from `i` on.
template <int kQueries, bool kWhole>
inline void gradient_rows(const GradientQuery* queries, const AttentionGradientRow& rows,
                          const KeyValueView& seen, std::int64_t kv_head,
                          const AttentionShape& shape, std::int64_t i, std::int64_t width) {
  const auto get = [width](const float* from) {
    if constexpr (kWhole) return load(from);
    return load_partial(from, width);
  };
  const auto put = [width](float* to, Vec v) {
    if constexpr (kWhole) return store(to, v);
    return store_partial(to, v, width);
  };
  Vec query[kQueries], dout[kQueries], dquery[kQueries];
  for (int q = 0; q < kQueries; ++q) {
    query[q] = get(queries[q].query + i);
    dout[q] = get(queries[q].dout + i);
    dquery[q] = get(queries[q].dquery + i);
  }
  const std::int64_t stride = shape.kv_heads * shape.head_dim;
  std::int64_t cell = seen.first * stride + kv_head * shape.head_dim + i;
  for (std::int64_t j = seen.first; j < seen.length; ++j, cell += stride) {
    const Vec key = get(rows.key_rows + cell);
    Vec dkey = get(rows.dkey_rows + cell), dvalue = get(rows.dvalue_rows + cell);
    for (int q = 0; q < kQueries; ++q) {
      dquery[q] += queries[q].ds[j] * key;
      dkey += queries[q].ds[j] * query[q];
      dvalue += queries[q].p[j] * dout[q];
    }
    put(rows.dkey_rows + cell, dkey);
    put(rows.dvalue_rows + cell, dvalue);
  }
  for (int q = 0; q < kQueries; ++q) put(queries[q].dquery + i, dquery[q]);
}

// Rows and heads in their order, so that a key's gradient adds up in the same order whatever the
// number of queries at once.
template <int kQueries>
void gradient_team(const AttentionGradientRow* rows, std::int64_t first, std::int64_t kv_head,
                   const AttentionShape& shape, float* scratch) {
  const std::int64_t group = shape.heads / shape.kv_heads, d = shape.head_dim;
  GradientQuery queries[kQueries];
  KeyValueView seen;
  for (int q = 0; q < kQueries; ++q) {
    const AttentionGradientRow& row = rows[(first + q) / group];
    const std::int64_t head = kv_head * group + (first + q) % group;
    const KeyValueView view{row.keys, row.values, row.length, row.first};
    seen = q == 0 ? view : join(seen, view);
    queries[q] = {row.query + head * d,
                  row.dout + head * d,
                  row.out + head * d,
                  row.dquery + head * d,
                  row.lse[head],
                  view,
                  nullptr,
                  nullptr};
  }
  const std::int64_t columns = key_blocks(seen.length) * kKeyBlock;
  for (int q = 0; q < kQueries; ++q) {
    queries[q].p = scratch + 2 * q * columns;
    queries[q].ds = queries[q].p + columns;
  }
  const Blocks blocks = blocks_of(seen);
  gradient_scores<kQueries, sums_for(2 * kQueries, 4)>(queries, blocks, blocks.begin, kv_head,
                                                       shape);
  const AttentionGradientRow& row = rows[first / group];
  std::int64_t i = 0;
  for (; i + kLanes <= d; i += kLanes)
    gradient_rows<kQueries, true>(queries, row, seen, kv_head, shape, i, kLanes);
  if (i < d) gradient_rows<kQueries, false>(queries, row, seen, kv_head, shape, i, d - i);
}

void attention_gradient(const AttentionGradientRow* rows, std::int64_t count, std::int64_t kv_head,
                        const AttentionShape& shape, float* scratch) {
  const std::int64_t group = shape.heads / shape.kv_heads, all = count * group;
  std::int64_t q = 0;
  while (q < all) {
    bool team = q + kTeamRows <= all;
    for (int i = 1; i < kTeamRows && team; ++i)
      team = rows[(q + i) / group].keys == rows[q / group].keys;
    if (team) {
      gradient_team<kTeamRows>(rows, q, kv_head, shape, scratch);
    } else {
      gradient_team<1>(rows, q, kv_head, shape, scratch);
    }
    q += team ? kTeamRows : 1;
  }
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
