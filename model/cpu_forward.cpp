// SPDX-License-Identifier: Apache-2.0
#include "model/cpu_forward.h"

#include <algorithm>
#include <array>
#include <ranges>
#include <type_traits>

#include "model/cpu_team.h"
#include "model/cpu_tiles.h"
#include "model/kernel_calls.h"

namespace rollcall {
namespace {

using Member = CpuTeam::Member;

constexpr std::int64_t kMostBlockRows = 16;

// Memory that only grows; what it held is lost.
template <class T>
class Buffer {
 public:
  void reserve(std::int64_t count) {
    if (std::ssize(memory_) >= count) return;
    memory_.clear();
    memory_.resize(static_cast<std::size_t>(count));
  }
  T* data() { return memory_.data(); }

 private:
  std::vector<T> memory_;
};

// Where a row's key and value go, and what it sees.
struct Place {
  KvSegment* own;
  const KvSegment* prefix;  // null: none
  std::int64_t at;          // in `own`

  std::int64_t before() const { return prefix == nullptr ? 0 : prefix->length(); }
  std::int64_t position() const { return before() + at; }
};

// Element: what products multiply, float or BFloat16Pair.
template <class Element>
class Forward final : public CpuForward {
 public:
  explicit Forward(const Decoder& decoder)
      : decoder_(decoder),
        spec_(decoder.spec()),
        kernels_(cpu_kernels()),
        shape_(decoder.attention_shape()) {}

  const float* hidden(const std::vector<std::int32_t>& tokens,
                      const std::vector<Stretch>& stretches,
                      const std::vector<std::int64_t>& wanted) override {
    const std::int64_t positions = take_places(stretches);
    const bool every = std::ranges::equal(wanted, std::views::iota(std::int64_t{0}, all_.count()));
    Rows& last = every ? all_ : last_;
    if (!every) {
      last.places.clear();
      for (const std::int64_t row : wanted)
        last.places.push_back(all_.places[static_cast<std::size_t>(row)]);
    }
    reserve(last);
    const std::int64_t flops = all_.count() * product_flops() + 4 * q_width() * positions;
    team_.run(flops, [&](Member& member) {
      embed(member, tokens);
      for (std::int64_t i = 0; i + 1 < spec_.layers; ++i) layer(member, i, all_);
      if (!every) take_wanted(member, wanted);
      layer(member, spec_.layers - 1, last);
      norm(member, last, decoder_.final_norm());
    });
    return last.normed.data();
  }

  const float* logits(const float* hidden, std::int64_t rows) override {
    const LinearWeight& head = decoder_.head();
    logits_.reserve(rows * head.out);
    if constexpr (kRounds) head_inputs_.reserve(rows * panel_steps<Element>(head.in));
    team_.run(2 * rows * head.in * head.out, [&](Member& member) {
      if constexpr (kRounds)
        share_rows(member, rows, [&](const Part& r) { round(hidden, head.in, r, head_inputs_); });
      share_products(member,
                     {product_of(operands(hidden, head_inputs_), rows, head, logits_.data())});
    });
    return logits_.data();
  }

 private:
  using Operands = Buffer<Element>;  // of float32 empty: products read what there is

  // Rows that go through a layer together.
  struct Rows {
    std::int64_t count() const { return std::ssize(places); }
    std::vector<Place> places;
    Buffer<float> x, normed, q;  // the residual stream; queries, then what attention mixed for them
    Operands rounded;            // `normed` or `q`
  };

  std::int64_t q_width() const { return shape_.heads * shape_.head_dim; }
  std::int64_t kv_width() const { return shape_.kv_heads * shape_.head_dim; }
  // Of a row in a layer's products.
  std::int64_t product_flops() const {
    return 2 * spec_.hidden_size * (2 * q_width() + 2 * kv_width() + 3 * spec_.intermediate_size);
  }

  // How many positions all rows see together.
  std::int64_t take_places(const std::vector<Stretch>& stretches) {
    all_.places.clear();
    std::int64_t most = 0, seen_by_all = 0;
    most_blocks_ = 0;
    for (const Stretch& s : stretches) {
      const std::int64_t seen = s.own->length();
      s.own->extend(s.count);
      for (std::int64_t i = 0; i < s.count; ++i) all_.places.push_back({s.own, s.prefix, seen + i});
      const std::int64_t before = s.prefix == nullptr ? 0 : s.prefix->length();
      most = std::max(most, before + seen + s.count);
      seen_by_all += (before + seen + s.count) * s.count;
      most_blocks_ = std::max(most_blocks_, key_blocks(before) + key_blocks(seen + s.count));
    }
    rotations_ = decoder_.rotations(most);
    return seen_by_all;
  }

  void reserve(Rows& last) {
    for (Rows* rows : {&all_, &last}) {
      const std::int64_t n = rows->count();
      rows->x.reserve(n * spec_.hidden_size);
      rows->normed.reserve(n * spec_.hidden_size);
      rows->q.reserve(n * q_width());
      if constexpr (kRounds)
        rows->rounded.reserve(n * panel_steps<Element>(std::max(spec_.hidden_size, q_width())));
    }
    k_.reserve(all_.count() * kv_width());
    v_.reserve(all_.count() * kv_width());
    gated_.reserve(all_.count() * panel_steps<Element>(spec_.intermediate_size));
    const std::int64_t tile =
        std::min(all_.count(), kProductRows) * Tiles::kMostPanels * kPanelWidth;
    const auto threads = static_cast<std::size_t>(CpuTeam::most_threads());
    if (scratch_.size() < threads) scratch_.resize(threads);
    for (Buffer<float>& of_thread : scratch_)
      of_thread.reserve(std::max(2 * tile, attention_scratch(shape_, most_blocks_)));
  }

  float* scratch(const Member& member) {
    return scratch_[static_cast<std::size_t>(member.index())].data();
  }

  template <class Body>
  static void share_rows(Member& member, std::int64_t rows, const Body& body) {
    const std::int64_t part = part_size(rows, member.threads(), kMostBlockRows);
    member.share(parts(rows, part), [&](std::int64_t i) { body(nth_part(i, part, rows)); });
  }

  // What products take for rows of `width` floats.
  static const Element* operands(const float* rows, Operands& rounded) {
    if constexpr (kRounds)
      return rounded.data();
    else
      return rows;
  }
  // Makes them, of some columns of some rows: the first an even one.
  void round(const float* rows, std::int64_t width, const Part& r, Operands& to,
             Part columns) const {
    if constexpr (kRounds) {
      for (std::int64_t i = r.first; i < r.last; ++i)
        kernels_.round_inputs(rows + i * width + columns.first, columns.count(),
                              to.data() + i * panel_steps<Element>(width) + columns.first / 2);
    }
  }
  void round(const float* rows, std::int64_t width, const Part& r, Operands& to) const {
    round(rows, width, r, to, {0, width});
  }

  void embed(Member& member, const std::vector<std::int32_t>& tokens) {
    const auto* panels = static_cast<const Element*>(decoder_.embedding().packed.const_data_ptr());
    const std::int64_t hidden = spec_.hidden_size;
    share_rows(member, all_.count(), [&](const Part& r) {
      for (std::int64_t i = r.first; i < r.last; ++i) {
        const std::int64_t id = tokens[static_cast<std::size_t>(i)];
        unpack_weights(panels, hidden, id, id + 1, all_.x.data() + i * hidden);
      }
    });
  }

  void norm(Member& member, Rows& rows, const at::Tensor& weight) {
    const std::int64_t n = spec_.hidden_size;
    share_rows(member, rows.count(), [&](const Part& r) {
      kernels_.rms_norm(rows.x.data() + r.first * n, weight.const_data_ptr<float>(), r.count(), n,
                        static_cast<float>(spec_.rms_norm_eps), rows.normed.data() + r.first * n,
                        nullptr);
      round(rows.normed.data(), n, r, rows.rounded);
    });
  }

  void share_products(Member& member, std::initializer_list<LinearCall<Element>> products) const {
    rollcall::share_products<Element>(member, {products.begin(), products.size()});
  }

  // Some rows and panels of a product, whose columns stand side by side in `y`.
  void compute_into(float* y, const LinearCall<Element>& product, const Part& rows,
                    const Part& panels) const {
    auto tile = tile_of(product, rows, panels);
    tile.y = y;
    tile.ldy = tile.out;
    compute(tile);
  }

  // Behind the product, whose sums do without numbers below 2^-126.
  void add_product(Member& member, const Element* x, const LinearWeight& w, Rows& rows) {
    const LinearCall<Element> product = product_of(x, rows.count(), w, nullptr);
    const Tiles tiles(product, member.threads());
    member.share(tiles.count(), [&](std::int64_t i) {
      const Part r = tiles.rows_of(i), panels = tiles.panels_of(i),
                 columns = columns_of(w.out, panels);
      const float* from = scratch(member);
      compute_into(scratch(member), product, r, panels);
      for (std::int64_t row = r.first; row < r.last; ++row, from += columns.count()) {
        float* to = rows.x.data() + row * w.out + columns.first;
#pragma omp simd
        for (std::int64_t c = 0; c < columns.count(); ++c) to[c] += from[c];
      }
    });
  }

  void gate(Member& member, Rows& rows, const LinearWeight& gate, const LinearWeight& up) {
    const Element* x = operands(rows.normed.data(), rows.rounded);
    const LinearCall<Element> of_gate = product_of(x, rows.count(), gate, nullptr),
                              of_up = product_of(x, rows.count(), up, nullptr);
    const Tiles tiles(of_gate, member.threads());
    member.share(tiles.count(), [&](std::int64_t i) {
      const Part r = tiles.rows_of(i), panels = tiles.panels_of(i);
      const Part columns = columns_of(gate.out, panels);
      const std::int64_t width = columns.count();
      float *gates = scratch(member), *ups = gates + r.count() * width;
      compute_into(gates, of_gate, r, panels);
      compute_into(ups, of_up, r, panels);
      for (std::int64_t row = r.first; row < r.last; ++row, gates += width, ups += width) {
        Element* to = gated_.data() + row * panel_steps<Element>(gate.out) +
                      columns.first / kInputsAStep<Element>;
        if constexpr (kRounds) {
          kernels_.silu_mul(gates, ups, width, gates);
          kernels_.round_inputs(gates, width, to);
        } else {
          kernels_.silu_mul(gates, ups, width, to);
        }
      }
    });
  }

  // Norms and rotates the heads of a row.
  void turn(float* row, std::int64_t heads, const at::Tensor& norm, std::int64_t layer,
            std::int64_t position) const {
    if (norm.defined())
      kernels_.rms_norm(row, norm.const_data_ptr<float>(), heads, shape_.head_dim,
                        static_cast<float>(spec_.rms_norm_eps), row, nullptr);
    const std::int64_t at = position * (shape_.head_dim / 2);
    if (spec_.rotates(layer))
      kernels_.rope(row, 1, heads, shape_.head_dim, rotations_.cosine + at, rotations_.sine + at);
  }

  void turn_and_store(Member& member, std::int64_t index, Rows& out) {
    const Decoder::Layer& layer = decoder_.layers()[static_cast<std::size_t>(index)];
    const std::int64_t n = all_.count();
    share_rows(member, n + out.count(), [&](const Part& r) {
      for (std::int64_t i = r.first; i < std::min(n, r.last); ++i) {
        const Place& place = all_.places[static_cast<std::size_t>(i)];
        float* key = k_.data() + i * kv_width();
        turn(key, shape_.kv_heads, layer.k_norm, index, place.position());
        place.own->store<Element>(index, place.at, key, v_.data() + i * kv_width());
      }
      for (std::int64_t i = std::max(n, r.first) - n; i < r.last - n; ++i)
        turn(out.q.data() + i * q_width(), shape_.heads, layer.q_norm, index,
             out.places[static_cast<std::size_t>(i)].position());
    });
  }

  AttentionRow<Element> attention_row(std::int64_t layer, Rows& rows, std::int64_t i) const {
    const Place& place = rows.places[static_cast<std::size_t>(i)];
    float* const q = rows.q.data() + i * q_width();
    const auto prefix = place.prefix == nullptr
                            ? KeyValueView<Element>{}
                            : place.prefix->view<Element>(layer, place.before());
    return rollcall::attention_row(
        q, q, nullptr, prefix, place.own->view<Element>(layer, place.at + 1), spec_.window(layer));
  }

  // Few rows are split by heads, too; many that share keys are faster together.
  void attend(Member& member, std::int64_t layer, Rows& rows) {
    const std::int64_t n = rows.count(), threads = member.threads();
    const std::int64_t head_parts = n < 2 * threads ? std::min(threads, shape_.heads) : 1;
    const std::int64_t part = head_parts > 1 ? 1 : part_size(n, threads, kMostBlockRows);
    member.share(parts(n, part) * head_parts, [&](std::int64_t i) {
      const Part r = nth_part(i / head_parts, part, n);
      const std::int64_t head = i % head_parts;
      const Part heads{head * shape_.heads / head_parts, (head + 1) * shape_.heads / head_parts};
      std::array<AttentionRow<Element>, kMostBlockRows> seen;
      for (std::int64_t row = r.first; row < r.last; ++row)
        seen[static_cast<std::size_t>(row - r.first)] = attention_row(layer, rows, row);
      (kernels_.*Kernels<Element>::kAttention)(seen.data(), r.count(), shape_, heads.first,
                                               heads.last, scratch(member));
      round(rows.q.data(), q_width(), r, rows.rounded,
            {heads.first * shape_.head_dim, heads.last * shape_.head_dim});
    });
  }

  // Of all rows the keys and values, and `out` through the layer.
  void layer(Member& member, std::int64_t index, Rows& out) {
    const Decoder::Layer& w = decoder_.layers()[static_cast<std::size_t>(index)];
    norm(member, all_, w.input_norm);
    if (&out != &all_) norm(member, out, w.input_norm);
    const Element* in = operands(all_.normed.data(), all_.rounded);
    share_products(member, {product_of(operands(out.normed.data(), out.rounded), out.count(), w.q,
                                       out.q.data()),
                            product_of(in, all_.count(), w.k, k_.data()),
                            product_of(in, all_.count(), w.v, v_.data())});
    turn_and_store(member, index, out);
    attend(member, index, out);
    add_product(member, operands(out.q.data(), out.rounded), w.o, out);
    norm(member, out, w.post_attention_norm);
    gate(member, out, w.gate, w.up);
    add_product(member, gated_.data(), w.down, out);
  }

  void take_wanted(Member& member, const std::vector<std::int64_t>& wanted) {
    const std::int64_t width = spec_.hidden_size;
    share_rows(member, last_.count(), [&](const Part& r) {
      for (std::int64_t i = r.first; i < r.last; ++i)
        std::copy_n(all_.x.data() + wanted[static_cast<std::size_t>(i)] * width, width,
                    last_.x.data() + i * width);
    });
  }

  static constexpr bool kRounds = !std::is_same_v<Element, float>;

  const Decoder& decoder_;
  const ModelSpec& spec_;
  const CpuKernels& kernels_;
  AttentionShape shape_;
  CpuTeam team_;
  Rows all_, last_;  // of the batch; of those that the last layer is wanted for
  Buffer<float> k_, v_, logits_;
  Buffer<Element> gated_, head_inputs_;
  std::vector<Buffer<float>> scratch_;  // of each thread
  std::int64_t most_blocks_ = 0;        // of keys that a row sees
  Decoder::Rotations rotations_{};
};

}  // namespace

std::unique_ptr<CpuForward> make_cpu_forward(const Decoder& decoder) {
  if (decoder.dtype() == at::kBFloat16) return std::make_unique<Forward<BFloat16Pair>>(decoder);
  return std::make_unique<Forward<float>>(decoder);
}

}  // namespace rollcall
