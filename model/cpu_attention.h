// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <math.h>

#include "model/cpu_kernels.h"
#include "model/cpu_vector.h"

// The attention kernels, forward and backward. For cpu_kernels.cpp alone, which is compiled once
// per instruction set: hence the unnamed namespace, and no standard library templates.
namespace rollcall {
namespace {

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
template <class Element>
inline Mask visible_lanes(std::int64_t block, const KeyValueView<Element>& view) {
  return lanes_between(view.first - block * kKeyBlock, view.length - block * kKeyBlock);
}

// The blocks that hold what a view shows, and how many scores they take.
struct Blocks {
  std::int64_t begin = 0, end = 0;
  std::int64_t columns() const { return (end - begin) * kKeyBlock; }
};

template <class Element>
inline Blocks blocks_of(const KeyValueView<Element>& view) {
  if (view.first >= view.length) return {};
  return {view.first / kKeyBlock, key_blocks(view.length)};
}

// The same keys and values, as far as any of the rows sees them.
template <class Element>
inline KeyValueView<Element> join(KeyValueView<Element> a, const KeyValueView<Element>& b) {
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
inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

// Sixteen lanes of one half of the elements at p; a float has one.
ROLLCALL_INLINE Vec half_of(const float* p, int) { return load(p); }
ROLLCALL_INLINE Vec half_of(const BFloat16Pair* p, int half) {
  return half == 0 ? widened(p, even_part_of) : widened(p, odd_part_of);
}

// Scores of the blocks [b, blocks.end) of a stretch, of which query i sees views[i]. The keys at
// the same places of `ahead` are fetched meanwhile, unless it is null.
template <int kQueries, int kBlocks, class Element>
inline void score_blocks(Team<kQueries>& team, const KeyValueView<Element>* views,
                         const Element* ahead, const Blocks& blocks, std::int64_t b,
                         std::int64_t kv_head, const AttentionShape& shape) {
  constexpr std::int64_t kDims = kInputsAStep<Element>;
  const std::int64_t block_size = shape.key_block<Element>();
  for (; b + kBlocks <= blocks.end; b += kBlocks) {
    const std::int64_t offset = b * block_size + kv_head * (shape.head_dim / kDims) * kKeyBlock;
    const Element* keys = views[0].keys + offset;
    Vec sum[kQueries][kBlocks] = {};
    for (std::int64_t i = 0; i < shape.head_dim / kDims; ++i) {
      if (ahead != nullptr) {
        for (int n = 0; n < kBlocks; ++n) prefetch(ahead + offset + n * block_size + i * kKeyBlock);
      }
      for (int half = 0; half < kDims; ++half) {
        Vec key[kBlocks];
        for (int n = 0; n < kBlocks; ++n)
          key[n] = half_of(keys + n * block_size + i * kKeyBlock, half);
        for (int q = 0; q < kQueries; ++q) {
          const float x = team.query[q][i * kDims + half];
          for (int n = 0; n < kBlocks; ++n) sum[q][n] += x * key[n];
        }
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

template <int kQueries, class Element>
void score_stretch(Team<kQueries>& team, const KeyValueView<Element>* views, const Element* ahead,
                   const Blocks& blocks, std::int64_t kv_head, const AttentionShape& shape) {
  score_blocks<kQueries, sums_for(kQueries, 8)>(team, views, ahead, blocks, blocks.begin, kv_head,
                                                shape);
}

// Where dimensions [i, i + 16) of a head's values lie.
template <class Element>
struct ValuePlace {
  static constexpr std::int64_t kDims = kLanes * kInputsAStep<Element>;
  explicit ValuePlace(std::int64_t i)
      : offset(i / kDims * kLanes), half(static_cast<int>(i % kDims / kLanes)) {}
  std::int64_t offset;
  int half;
};

// Adds probability * value of one stretch for dimensions [i, i + 16 * kWide) of a head; `ahead` as
// of the scores.
template <int kQueries, int kWide, class Element>
inline void mix_stretch(float* const* probabilities, const KeyValueView<Element>& view,
                        const Element* ahead, const AttentionShape& shape, std::int64_t kv_head,
                        std::int64_t i, Vec (*sum)[kWide]) {
  const std::int64_t row = shape.value_row<Element>(), head = kv_head * shape.value_head<Element>();
  const std::int64_t hidden_columns = blocks_of(view).begin * kKeyBlock;
  const ValuePlace<Element> first(i);
  const Element* value = view.values + view.first * row + head + first.offset;
  for (std::int64_t j = view.first; j < view.length; ++j, value += row) {
    if (ahead != nullptr) {
      for (int w = 0; w < kWide; w += static_cast<int>(kInputsAStep<Element>))
        prefetch(ahead + j * row + head + first.offset + ValuePlace<Element>(w * kLanes).offset);
    }
    Vec v[kWide];
    for (int w = 0; w < kWide; ++w) {
      const ValuePlace<Element> place(w * kLanes);  // `i` begins an element if there are several
      v[w] = half_of(value + place.offset, kWide == 1 ? first.half : place.half);
    }
    for (int q = 0; q < kQueries; ++q) {
      const float p = probabilities[q][j - hidden_columns];
      for (int w = 0; w < kWide; ++w) sum[q][w] += p * v[w];
    }
  }
}

// Rows [0, kRows) of kGroup heads; the rows have their prefix in common, or their own stretch, or
// both.
template <int kGroup, int kRows, class Element>
class HeadAttention {
  using Row = AttentionRow<Element>;
  using View = KeyValueView<Element>;

 public:
  // Rows behind these, up to `end`, come next.
  HeadAttention(const Row* rows, const Row* end, std::int64_t first_head,
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
      const Row& row = rows[q / kGroup];
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
  View ahead(int r, View Row::*stretch) const {
    const Row* next = rows_ + r + 1;
    const bool other = next < end_ && (next->*stretch).keys != (rows_[r].*stretch).keys;
    return other ? next->*stretch : View{};
  }

  void score() {
    for (int q = 0; q < kQueries; ++q) team_.scores[q] = scores_[q];
    score_stretch(team_, prefix_views_, ahead(kRows - 1, &Row::prefix).keys, blocks_of(prefix_),
                  kv_head_, shape_);
    for (int q = 0; q < kQueries; ++q) team_.scores[q] = scores_[q] + prefix_columns_;
    if (own_shared_)
      return score_stretch(team_, own_views_, ahead(kRows - 1, &Row::own).keys, blocks_of(own_),
                           kv_head_, shape_);
    for (int r = 0; r < kRows; ++r) {
      Team<kGroup> heads;
      for (int h = 0; h < kGroup; ++h) {
        heads.query[h] = team_.query[r * kGroup + h];
        heads.scores[h] = team_.scores[r * kGroup + h];
        heads.highest[h] = team_.highest[r * kGroup + h];
      }
      score_stretch(heads, own_views_ + r * kGroup, ahead(r, &Row::own).keys,
                    blocks_of(rows_[r].own), kv_head_, shape_);
      for (int h = 0; h < kGroup; ++h) team_.highest[r * kGroup + h] = heads.highest[h];
    }
  }

  void normalize() {
    for (int q = 0; q < kQueries; ++q) {
      const Row& row = rows_[q / kGroup];
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
    mix_stretch<kQueries>(scores_, prefix_, ahead(kRows - 1, &Row::prefix).values, shape_, kv_head_,
                          i, sum);
    if (own_shared_) {
      mix_stretch<kQueries>(team_.scores, own_, ahead(kRows - 1, &Row::own).values, shape_,
                            kv_head_, i, sum);
    } else {
      for (int r = 0; r < kRows; ++r)
        mix_stretch<kGroup>(team_.scores + r * kGroup, rows_[r].own, ahead(r, &Row::own).values,
                            shape_, kv_head_, i, sum + r * kGroup);
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

  const Row *rows_, *end_;
  std::int64_t first_head_, kv_head_;
  const AttentionShape& shape_;
  View prefix_, own_;  // own_: if it is shared
  bool own_shared_ = true;
  View prefix_views_[kQueries], own_views_[kQueries];
  std::int64_t prefix_columns_ = 0, stride_ = 0;
  float* scores_[kQueries];
  float scale_[kQueries];
  Team<kQueries> team_;
};

template <int kRows, class Element>
void attend_rows(const AttentionRow<Element>* rows, const AttentionRow<Element>* end_rows,
                 const AttentionShape& shape, std::int64_t first_head, std::int64_t last_head,
                 float* scratch) {
  const std::int64_t group = shape.heads / shape.kv_heads;
  for (std::int64_t head = first_head; head < last_head;) {
    const std::int64_t of_kv_head = (head / group + 1) * group;
    const std::int64_t end = of_kv_head < last_head ? of_kv_head : last_head;
    for (; head + 4 <= end; head += 4)
      HeadAttention<4, kRows, Element>(rows, end_rows, head, shape, scratch).run();
    for (; head + 2 <= end; head += 2)
      HeadAttention<2, kRows, Element>(rows, end_rows, head, shape, scratch).run();
    for (; head < end; ++head)
      HeadAttention<1, kRows, Element>(rows, end_rows, head, shape, scratch).run();
  }
}

// Whether all rows have the same prefix, and with it, or without any, a stretch to share.
template <class Element>
bool share_keys(const AttentionRow<Element>* rows, int count) {
  bool own = true;
  for (int r = 1; r < count; ++r) {
    if (rows[r].prefix.keys != rows[0].prefix.keys) return false;
    own = own && rows[r].own.keys == rows[0].own.keys;
  }
  return own || rows[0].prefix.keys != nullptr;
}

template <class Element>
void attend(const AttentionRow<Element>* rows, std::int64_t count, const AttentionShape& shape,
            std::int64_t first_head, std::int64_t last_head, float* scratch) {
  static_assert(kTeamRows <= kMostTeamRows);
  std::int64_t r = 0;
  while (r < count) {
    if (r + kTeamRows <= count && share_keys(rows + r, kTeamRows)) {
      attend_rows<kTeamRows>(rows + r, rows + count, shape, first_head, last_head, scratch);
      r += kTeamRows;
    } else {
      attend_rows<1>(rows + r, rows + count, shape, first_head, last_head, scratch);
      ++r;
    }
  }
}

// A row's head in the backward pass.
struct GradientQuery {
  const float *query, *dout, *out;  // [head_dim]
  float* dquery;
  float lse;
  KeyValueView<float> view;  // keys and values blocked
  float *p, *ds;             // of all positions: probabilities and score gradients
};

// Probabilities and score gradients of the blocks [b, blocks.end).
template <int kQueries, int kBlocks>
inline void gradient_scores(const GradientQuery* queries, const Blocks& blocks, std::int64_t b,
                            std::int64_t kv_head, const AttentionShape& shape) {
  const std::int64_t d = shape.head_dim, block_floats = shape.key_block<float>();
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
                          const KeyValueView<float>& seen, std::int64_t kv_head,
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
  KeyValueView<float> seen;
  for (int q = 0; q < kQueries; ++q) {
    const AttentionGradientRow& row = rows[(first + q) / group];
    const std::int64_t head = kv_head * group + (first + q) % group;
    const KeyValueView<float> view{row.keys, row.values, row.length, row.first};
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

}  // namespace
}  // namespace rollcall
