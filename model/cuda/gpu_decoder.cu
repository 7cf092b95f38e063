// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "model/cuda/gpu_decoder.h"
#include "model/cuda/kernels.h"
#include "model/cuda/number.h"
#include "model/cuda/sample_rows.h"

namespace rollcall::cuda {
namespace {

constexpr std::size_t kStagingBytes = std::size_t{16} << 20;
constexpr double kCacheShare = 0.9;   // of what is free beside weights and buffers
constexpr int kBlocksAProcessor = 4;  // that attention should have at least, by splitting keys
constexpr std::int64_t kMostSplits = 32;
constexpr unsigned kThreads = 256;

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

// Where the numbers of a batch lie in the one block that is copied for each step. Everything but
// the lists of pages has a fixed place, so that a recorded step finds its batch.
struct BatchLayout {
  std::size_t tokens, positions, caches, tiles, keep_rows, keep_slots, draw_rows, draw_slots,
      valid_ids, uniforms, lists, end;

  BatchLayout(std::int64_t rows, std::int64_t draws, std::int64_t pages) {
    std::size_t at = 0;
    const auto place = [&](std::int64_t count, std::size_t bytes) {
      const std::size_t begin = at;
      at += (static_cast<std::size_t>(count) * bytes + 15) / 16 * 16;
      return begin;
    };
    tokens = place(rows, sizeof(std::int32_t));
    positions = place(rows, sizeof(std::int32_t));
    caches = place(rows, sizeof(RowCache));
    tiles = place(rows, sizeof(Tile));
    keep_rows = place(draws, sizeof(std::int32_t));
    keep_slots = place(draws, sizeof(std::int32_t));
    draw_rows = place(draws, sizeof(std::int32_t));
    draw_slots = place(draws, sizeof(std::int32_t));
    valid_ids = place(draws, sizeof(std::int32_t));
    uniforms = place(draws, sizeof(float));
    lists = place(pages + 1, sizeof(std::int32_t));
    end = at;
  }
};

// How large a step's launches are.
struct StepSize {
  std::int64_t rows, tiles, draws, splits;
  std::int64_t keeps = 0, kept_draws = 0;
};

struct Cache {
  std::vector<std::int32_t> pages;
  std::int64_t length = 0;
  bool open = false;
};

template <class Number>
class Decoder final : public GpuDecoder {
 public:
  Decoder(const RollcallDecoderOptions& options, Device& device)
      : options_(options),
        device_(device),
        windows_(options.windows, options.windows + options.layers),
        rotates_(options.rotates, options.rotates + options.layers),
        shape_{static_cast<std::int32_t>(options.heads),
               static_cast<std::int32_t>(options.kv_heads),
               static_cast<std::int32_t>(options.head_dim)},
        attend_(options.head_dim <= kLanes * 2   ? attend<Number, 2>
                : options.head_dim <= kLanes * 4 ? attend<Number, 4>
                                                 : attend<Number, kMostDim / kLanes>),
        parameters_(static_cast<std::size_t>(options.layers)),
        staging_(device, kStagingBytes, true) {
    require(options.head_dim <= kMostDim && options.head_dim % 2 == 0,
            "the GPU's attention takes heads of an even size up to 256");
    allocate_matrices();
    allocate_buffers();
    allocate_pages();
    allow_block_memory(attend_, attention_bytes<Number>(shape_));
  }

  void set(const RollcallParameter& p) override {
    const Extent extent = extent_of(p.kind);
    require(p.layer >= 0 && p.layer < (extent.of_layer ? options_.layers : 1) && p.first_row >= 0 &&
                p.rows >= 0 && p.first_row + p.rows <= extent.rows,
            "a parameter of another shape than the decoder's");
    Memory& memory = slot(p.kind, p.layer);
    if (memory.empty()) {
      memory = Memory(device_, extent.bytes());
      recordings_.clear();  // which do without it
    }
    const auto* from = static_cast<const char*>(p.values);
    auto* to = memory.template as<char>() + p.first_row * extent.row_bytes();
    const std::size_t all = static_cast<std::size_t>(p.rows) * extent.row_bytes();
    for (std::size_t done = 0; done < all;) {
      const std::size_t part = std::min(all - done, staging_.bytes());
      std::memcpy(staging_.as(), from + done, part);
      device_.upload(to + done, staging_.as(), part);
      device_.wait();
      done += part;
    }
  }

  std::int64_t open_cache() override {
    const auto unused = std::find_if(caches_.begin(), caches_.end(),
                                     [](const Cache& cache) { return !cache.open; });
    const std::int64_t id = unused - caches_.begin();
    if (unused == caches_.end()) caches_.emplace_back();
    caches_[static_cast<std::size_t>(id)].open = true;
    return id;
  }

  void close_cache(std::int64_t id) override {
    Cache& cache = cache_of(id);
    free_pages_.insert(free_pages_.end(), cache.pages.begin(), cache.pages.end());
    cache = {};
  }

  std::int64_t pages_free() const override { return static_cast<std::int64_t>(free_pages_.size()); }

  void step(const RollcallBatch& batch, std::int32_t* ids, float* logprobs) override {
    require(batch.rows >= 0 && batch.rows <= options_.max_rows && batch.draws >= 0 &&
                batch.draws <= options_.max_draws && batch.keeps >= 0 &&
                batch.keeps <= options_.max_draws,
            "a batch larger than the decoder's");
    for (std::int64_t i = 0; i < batch.rows; ++i)
      require(batch.tokens[i] >= 0 && batch.tokens[i] < options_.vocabulary,
              "a token outside of the vocabulary");
    for (std::int64_t i = 0; i < batch.draws; ++i)
      require(batch.valid_ids[i] > 0 && batch.valid_ids[i] <= options_.vocabulary,
              "more ids to draw from than the vocabulary has");
    for (std::int64_t i = 0; i < batch.stretches; ++i) extend(batch.stretch[i]);
    const bool one_each = decodes_only(batch);
    const StepSize size = one_each ? stage_padded(batch) : stage(batch);
    device_.upload(batch_.as(), staged_.as(), staged_bytes_);
    if (one_each)
      run_recorded(size);
    else
      forward(size);
    if (batch.draws > 0)
      device_.download(fetched_.as(), ids_and_logprobs_.as(),
                       static_cast<std::size_t>(options_.max_draws + batch.draws) * sizeof(float));
    device_.wait();
    std::copy_n(fetched_.as<std::int32_t>(), batch.draws, ids);
    std::copy_n(fetched_.as<float>() + options_.max_draws, batch.draws, logprobs);
  }

 private:
  using Parameters = std::array<Memory, kRollcallParameterKinds>;

  struct Extent {
    std::int64_t rows, columns;
    std::size_t number;
    bool of_layer, optional;
    std::size_t row_bytes() const { return static_cast<std::size_t>(columns) * number; }
    std::size_t bytes() const { return static_cast<std::size_t>(rows) * row_bytes(); }
  };

  std::int64_t qkv_rows() const {
    return (options_.heads + 2 * options_.kv_heads) * options_.head_dim;
  }

  Extent extent_of(RollcallParameterKind kind) const {
    const RollcallDecoderOptions& o = options_;
    constexpr std::size_t kMatrix = sizeof(Number), kVector = sizeof(float);
    switch (kind) {
      case kRollcallEmbedding:
        return {o.vocabulary, o.hidden, kMatrix, false, false};
      case kRollcallHead:  // log-probabilities are differences of large numbers
        return {o.vocabulary, o.hidden, kVector, false, embeds_with_head()};
      case kRollcallFinalNorm:
        return {o.hidden, 1, kVector, false, false};
      case kRollcallCosine:
      case kRollcallSine:
        return {o.max_context, o.head_dim / 2, kVector, false, false};
      case kRollcallInputNorm:
      case kRollcallPostAttentionNorm:
        return {o.hidden, 1, kVector, true, false};
      case kRollcallQkv:
        return {qkv_rows(), o.hidden, kMatrix, true, false};
      case kRollcallQkvBias:
        return {qkv_rows(), 1, kVector, true, true};
      case kRollcallQNorm:
      case kRollcallKNorm:
        return {o.head_dim, 1, kVector, true, true};
      case kRollcallOutput:
        return {o.hidden, o.heads * o.head_dim, kMatrix, true, false};
      case kRollcallOutputBias:
      case kRollcallDownBias:
        return {o.hidden, 1, kVector, true, true};
      case kRollcallGateUp:
        return {2 * o.intermediate, o.hidden, kMatrix, true, false};
      case kRollcallGateUpBias:
        return {2 * o.intermediate, 1, kVector, true, true};
      case kRollcallDown:
        return {o.hidden, o.intermediate, kMatrix, true, false};
      case kRollcallParameterKinds:
        break;
    }
    throw std::runtime_error("an unknown kind of parameter");
  }

  Memory& slot(RollcallParameterKind kind, std::int64_t layer) {
    return extent_of(kind).of_layer ? parameters_[static_cast<std::size_t>(layer)][kind]
                                    : shared_[kind];
  }
  bool embeds_with_head() const { return options_.tied != 0 && std::is_same<Number, float>::value; }

  template <class Element>
  const Element* parameter(RollcallParameterKind kind, std::int64_t layer = 0) {
    return slot(kind, layer).template as<Element>();
  }

  void allocate_matrices() {
    for (int k = 0; k < kRollcallParameterKinds; ++k) {
      const auto kind = static_cast<RollcallParameterKind>(k);
      const Extent extent = extent_of(kind);
      if (extent.optional) continue;
      for (std::int64_t layer = 0; layer < (extent.of_layer ? options_.layers : 1); ++layer)
        slot(kind, layer) = Memory(device_, extent.bytes());
    }
  }

  void allocate_buffers() {
    const RollcallDecoderOptions& o = options_;
    const auto floats = [&](std::int64_t rows, std::int64_t columns) {
      return Memory(device_, static_cast<std::size_t>(rows * columns) * sizeof(float));
    };
    const auto numbers = [&](std::int64_t rows, std::int64_t columns) {
      return Memory(device_, static_cast<std::size_t>(rows * columns) * sizeof(Number));
    };
    const std::int64_t attended = o.heads * o.head_dim;
    // Behind the batch's rows come those of draws behind kept states, to which nothing is added.
    residual_ = floats(o.max_rows + o.max_draws, o.hidden);
    delta_ = floats(o.max_rows + o.max_draws, o.hidden);
    normed_ = numbers(o.max_rows, o.hidden);
    final_ = floats(o.max_draws, o.hidden);
    qkv_ = floats(o.max_rows, qkv_rows());
    queries_ = floats(o.max_rows, attended);
    attended_ = numbers(o.max_rows, attended);
    gate_up_ = floats(o.max_rows, 2 * o.intermediate);
    gated_ = numbers(o.max_rows, o.intermediate);
    logits_ = floats(o.max_draws, o.vocabulary);
    static_assert(sizeof(std::int32_t) == sizeof(float));
    ids_and_logprobs_ = floats(2 * o.max_draws, 1);
    fetched_ = Memory(device_, ids_and_logprobs_.bytes(), true);
    wanted_blocks_ = static_cast<std::int64_t>(kBlocksAProcessor) * device_.multiprocessors();
    share_rows_ = o.max_draws + wanted_blocks_ / o.kv_heads;
    shares_ = Memory(device_, static_cast<std::size_t>(share_rows_ * o.heads) * sizeof(Share));
    share_values_ = floats(share_rows_, attended);
  }

  void allocate_pages() {
    const std::int64_t page = 2 * options_.kv_heads * kPagePositions * options_.head_dim;
    const std::size_t page_bytes =
        static_cast<std::size_t>(page * options_.layers) * sizeof(Number);
    const auto all = options_.cache_bytes > 0
                         ? static_cast<double>(options_.cache_bytes)
                         : kCacheShare * static_cast<double>(device_.free_bytes());
    const auto least = (options_.max_context + kPagePositions - 1) / kPagePositions + 1;
    pages_ = static_cast<std::int64_t>(all / static_cast<double>(page_bytes));
    require(pages_ > least, "the GPU has no room for the cache of one sequence of max_context");
    page_numbers_ = Memory(device_, page_bytes * static_cast<std::size_t>(pages_));
    layer_numbers_ = page * pages_;
    for (std::int64_t i = pages_ - 1; i > 0; --i)  // page 0 takes what padding writes
      free_pages_.push_back(static_cast<std::int32_t>(i));
    layout_ = std::make_unique<BatchLayout>(options_.max_rows, options_.max_draws, pages_);
    staged_ = Memory(device_, layout_->end, true);
    batch_ = Memory(device_, layout_->end);
  }

  Cache& cache_of(std::int64_t id) {
    require(id >= 0 && id < static_cast<std::int64_t>(caches_.size()) &&
                caches_[static_cast<std::size_t>(id)].open,
            "there is no such cache");
    return caches_[static_cast<std::size_t>(id)];
  }

  void extend(const RollcallStretch& stretch) {
    Cache& cache = cache_of(stretch.cache);
    const std::int64_t before = stretch.prefix < 0 ? 0 : cache_of(stretch.prefix).length;
    require(stretch.rows > 0 && before + cache.length + stretch.rows <= options_.max_context,
            "a sequence longer than max_context");
    cache.length += stretch.rows;
    while (static_cast<std::int64_t>(cache.pages.size()) * kPagePositions < cache.length) {
      require(!free_pages_.empty(), "the caches on the GPU are full");
      cache.pages.push_back(free_pages_.back());
      free_pages_.pop_back();
    }
  }

  template <class Element>
  Element* staged(std::size_t place) const {
    return reinterpret_cast<Element*>(staged_.template as<char>() + place);
  }
  template <class Element>
  const Element* on_gpu(std::size_t place) const {
    return reinterpret_cast<const Element*>(batch_.template as<char>() + place);
  }

  // Every stretch is one token behind which one is drawn, in the same order.
  bool decodes_only(const RollcallBatch& batch) const {
    if (batch.rows == 0 || batch.rows != batch.stretches || batch.rows != batch.draws ||
        batch.keeps > 0)
      return false;
    for (std::int64_t i = 0; i < batch.draws; ++i)
      if (batch.draw_rows[i] != i) return false;
    return true;
  }

  std::int64_t splits_for(std::int64_t tiles, std::int64_t rows) const {
    const std::int64_t wanted =
        wanted_blocks_ / std::max<std::int64_t>(1, tiles * options_.kv_heads);
    const std::int64_t room = share_rows_ / std::max<std::int64_t>(1, rows);
    return std::clamp<std::int64_t>(std::min(wanted, room), 1, kMostSplits);
  }

  StepSize stage(const RollcallBatch& batch) {
    std::copy_n(batch.tokens, batch.rows, staged<std::int32_t>(layout_->tokens));
    std::copy_n(batch.valid_ids, batch.draws, staged<std::int32_t>(layout_->valid_ids));
    std::copy_n(batch.uniforms, batch.draws, staged<float>(layout_->uniforms));
    auto* positions = staged<std::int32_t>(layout_->positions);
    auto* rows = staged<RowCache>(layout_->caches);
    auto* tiles = staged<Tile>(layout_->tiles);
    auto* lists = staged<std::int32_t>(layout_->lists);
    lists[0] = 0;
    std::int32_t listed = 1;
    std::map<std::int64_t, std::int32_t> places;  // of a cache's pages
    const auto pages_of = [&](std::int64_t id) {
      const auto [place, is_new] = places.emplace(id, listed);
      if (is_new) {
        const auto& pages = cache_of(id).pages;
        std::copy(pages.begin(), pages.end(), lists + listed);
        listed += static_cast<std::int32_t>(pages.size());
      }
      return place->second;
    };
    std::int64_t tile_count = 0, row = 0;
    for (std::int64_t i = 0; i < batch.stretches; ++i) {
      const RollcallStretch& s = batch.stretch[i];
      require(s.first_row == row, "stretches that do not follow each other");
      const std::int64_t before = s.prefix < 0 ? 0 : cache_of(s.prefix).length;
      const RowCache where{static_cast<std::int32_t>(before), s.prefix < 0 ? 0 : pages_of(s.prefix),
                           pages_of(s.cache)};
      const std::int64_t first = before + cache_of(s.cache).length - s.rows;
      for (std::int64_t k = 0; k < s.rows; ++k, ++row) {
        positions[row] = static_cast<std::int32_t>(first + k);
        rows[row] = where;
        if (k % tile_rows(shape_) == 0) tiles[tile_count++] = {static_cast<std::int32_t>(row), 0};
        ++tiles[tile_count - 1].rows;
      }
    }
    require(row == batch.rows, "stretches that are not all of the batch");
    staged_bytes_ = layout_->lists + static_cast<std::size_t>(listed) * sizeof(std::int32_t);
    return {batch.rows,  tile_count,         batch.draws, splits_for(tile_count, batch.rows),
            batch.keeps, stage_states(batch)};
  }

  // The states that stay, and those that are drawn from; how many of the latter were kept before.
  std::int64_t stage_states(const RollcallBatch& batch) {
    for (std::int64_t i = 0; i < batch.keeps; ++i) {
      require(batch.keep_rows[i] >= 0 && batch.keep_rows[i] < batch.rows, "a row out of range");
      cache_of(batch.keep_caches[i]);
      staged<std::int32_t>(layout_->keep_rows)[i] = batch.keep_rows[i];
      staged<std::int32_t>(layout_->keep_slots)[i] =
          static_cast<std::int32_t>(batch.keep_caches[i]);
    }
    std::int64_t kept = 0;
    for (std::int64_t i = 0; i < batch.draws; ++i) {
      std::int32_t from = batch.draw_rows[i];
      require(from < batch.rows, "a row out of range");
      if (from < 0) {
        cache_of(batch.draw_caches[i]);
        from = static_cast<std::int32_t>(options_.max_rows + kept);
        staged<std::int32_t>(layout_->draw_slots)[kept++] =
            static_cast<std::int32_t>(batch.draw_caches[i]);
      }
      staged<std::int32_t>(layout_->draw_rows)[i] = from;
    }
    const auto slots = static_cast<std::int64_t>(caches_.size());
    if (slots > kept_slots_) {
      const auto bytes = [&](std::int64_t rows) {
        return static_cast<std::size_t>(rows * options_.hidden) * sizeof(float);
      };
      Memory larger(device_, bytes(2 * slots));
      if (kept_slots_ > 0) device_.copy(larger.as(), kept_.as(), bytes(kept_slots_));
      kept_ = std::move(larger);
      kept_slots_ = 2 * slots;
    }
    return kept;
  }

  // Up to the next power of two with rows that nobody looks at, so that few sizes are recorded.
  StepSize stage_padded(const RollcallBatch& batch) {
    stage(batch);
    std::int64_t size = 1;
    while (size < batch.rows) size *= 2;
    size = std::min({size, options_.max_draws, options_.max_rows});
    for (std::int64_t i = batch.rows; i < size; ++i) {
      staged<std::int32_t>(layout_->tokens)[i] = 0;
      staged<std::int32_t>(layout_->positions)[i] = 0;
      staged<RowCache>(layout_->caches)[i] = {0, 0, 0};
      staged<Tile>(layout_->tiles)[i] = {static_cast<std::int32_t>(i), 1};
      staged<std::int32_t>(layout_->draw_rows)[i] = static_cast<std::int32_t>(i);
      staged<std::int32_t>(layout_->valid_ids)[i] = 1;
      staged<float>(layout_->uniforms)[i] = 0;
    }
    return {size, size, size, splits_for(size, size)};
  }

  // The first step of a size is done as it is, so that nothing is set up while it is recorded.
  void run_recorded(const StepSize& size) {
    const auto [found, first_time] = recordings_.emplace(size.rows, nullptr);
    if (first_time) return forward(size);
    if (found->second == nullptr) {
      device_.begin_recording();
      try {
        forward(size);
      } catch (...) {
        device_.abandon_recording();
        throw;
      }
      found->second = device_.end_recording();
    }
    device_.replay(*found->second);
  }

  void move(std::int64_t count, const float* x, const float* delta, const std::int32_t* from,
            const std::int32_t* to, float* out) {
    if (count == 0) return;
    launch("move_rows", move_rows, dim3(static_cast<unsigned>(count)), kThreads, 0,
           device_.stream(), x, delta, from, to, static_cast<std::int32_t>(options_.hidden), out);
  }

  template <class Out>
  void norm(std::int64_t blocks, const float* delta, const float* bias, const float* weight,
            const std::int32_t* rows, Out* to) {
    launch("add_and_norm", add_and_norm<Out>, dim3(static_cast<unsigned>(blocks)), kNormThreads, 0,
           device_.stream(), residual_.as<float>(), delta, bias, weight, options_.rms_norm_eps,
           static_cast<std::int32_t>(options_.hidden), rows, to);
  }

  void multiply(std::int64_t rows, RollcallParameterKind kind, std::int64_t layer, const Memory& x,
                const Memory& y) {
    const Extent extent = extent_of(kind);
    device_.multiply(rows, extent.rows, extent.columns, x.as(), slot(kind, layer).as(),
                     std::is_same<Number, BFloat16>::value, y.as<float>());
  }

  static unsigned blocks_for(std::int64_t items, int a_block) {
    return static_cast<unsigned>((items + a_block - 1) / a_block);
  }

  void attention(const StepSize& size, std::int64_t layer) {
    const auto index = static_cast<std::size_t>(layer);
    Number* pages = page_numbers_.as<Number>() + layer * layer_numbers_;
    const auto* positions = on_gpu<std::int32_t>(layout_->positions);
    const auto* caches = on_gpu<RowCache>(layout_->caches);
    const auto* lists = on_gpu<std::int32_t>(layout_->lists);
    const bool rotates = rotates_[index] != 0;
    const HeadInputs<Number> heads{qkv_.as<float>(),
                                   parameter<float>(kRollcallQkvBias, layer),
                                   parameter<float>(kRollcallQNorm, layer),
                                   parameter<float>(kRollcallKNorm, layer),
                                   options_.rms_norm_eps,
                                   rotates ? parameter<float>(kRollcallCosine) : nullptr,
                                   rotates ? parameter<float>(kRollcallSine) : nullptr,
                                   positions,
                                   caches,
                                   lists,
                                   options_.attention_scale,
                                   queries_.as<float>(),
                                   pages};
    const std::int64_t items = size.rows * (options_.heads + 2 * options_.kv_heads);
    launch("turn_heads", turn_heads<Number>, dim3(blocks_for(items, kHeadWarps)),
           kHeadWarps * kLanes, 0, device_.stream(), heads, shape_,
           static_cast<std::int32_t>(size.rows));
    const AttentionInputs<Number> inputs{queries_.as<float>(),
                                         pages,
                                         positions,
                                         caches,
                                         lists,
                                         on_gpu<Tile>(layout_->tiles),
                                         static_cast<std::int32_t>(windows_[index]),
                                         size.splits == 1 ? attended_.as<Number>() : nullptr,
                                         shares_.as<Share>(),
                                         share_values_.as<float>()};
    launch("attend", attend_,
           dim3(static_cast<unsigned>(size.tiles), static_cast<unsigned>(options_.kv_heads),
                static_cast<unsigned>(size.splits)),
           kAttentionWarps * kLanes, attention_bytes<Number>(shape_), device_.stream(), inputs,
           shape_);
    if (size.splits == 1) return;
    const std::int64_t queries = size.rows * options_.heads;
    launch("merge_shares", merge_shares<Number>, dim3(blocks_for(queries, kHeadWarps)),
           kHeadWarps * kLanes, 0, device_.stream(), inputs.shares, inputs.values,
           static_cast<std::int32_t>(size.splits), static_cast<std::int32_t>(queries), shape_.dim,
           attended_.as<Number>());
  }

  // The residual stream is left without the last layer's output, which is in delta_.
  void run_layers(const StepSize& size) {
    launch("embed", embed<Number>, dim3(static_cast<unsigned>(size.rows)), kThreads, 0,
           device_.stream(), on_gpu<std::int32_t>(layout_->tokens),
           parameter<Number>(kRollcallEmbedding), static_cast<std::int32_t>(options_.hidden),
           residual_.as<float>());
    for (std::int64_t layer = 0; layer < options_.layers; ++layer) {
      norm(size.rows, layer == 0 ? nullptr : delta_.as<float>(),
           layer == 0 ? nullptr : parameter<float>(kRollcallDownBias, layer - 1),
           parameter<float>(kRollcallInputNorm, layer), nullptr, normed_.as<Number>());
      multiply(size.rows, kRollcallQkv, layer, normed_, qkv_);
      attention(size, layer);
      multiply(size.rows, kRollcallOutput, layer, attended_, delta_);
      norm(size.rows, delta_.as<float>(), parameter<float>(kRollcallOutputBias, layer),
           parameter<float>(kRollcallPostAttentionNorm, layer), nullptr, normed_.as<Number>());
      multiply(size.rows, kRollcallGateUp, layer, normed_, gate_up_);
      launch("silu_mul", silu_mul<Number>, dim3(static_cast<unsigned>(size.rows)), kThreads, 0,
             device_.stream(), gate_up_.as<float>(), parameter<float>(kRollcallGateUpBias, layer),
             static_cast<std::int32_t>(options_.intermediate), gated_.as<Number>());
      multiply(size.rows, kRollcallDown, layer, gated_, delta_);
    }
  }

  void forward(const StepSize& size) {
    if (size.rows > 0) run_layers(size);
    // Kept states are without the last bias, which the final norm adds for all.
    move(size.keeps, residual_.as<float>(), delta_.as<float>(),
         on_gpu<std::int32_t>(layout_->keep_rows), on_gpu<std::int32_t>(layout_->keep_slots),
         kept_.as<float>());
    move(size.kept_draws, kept_.as<float>(), nullptr, on_gpu<std::int32_t>(layout_->draw_slots),
         nullptr, residual_.as<float>() + options_.max_rows * options_.hidden);
    if (size.draws == 0) return;
    norm(size.draws, delta_.as<float>(), parameter<float>(kRollcallDownBias, options_.layers - 1),
         parameter<float>(kRollcallFinalNorm), on_gpu<std::int32_t>(layout_->draw_rows),
         final_.as<float>());
    device_.multiply(size.draws, options_.vocabulary, options_.hidden, final_.as(),
                     parameter<float>(embeds_with_head() ? kRollcallEmbedding : kRollcallHead),
                     /*bfloat16=*/false, logits_.as<float>());
    launch("sample_rows", sample_rows, dim3(static_cast<unsigned>(size.draws)),
           kSampleWarps * kLanes, 0, device_.stream(), logits_.as<float>(), options_.vocabulary,
           on_gpu<std::int32_t>(layout_->valid_ids), on_gpu<float>(layout_->uniforms),
           ids_and_logprobs_.as<std::int32_t>(),
           ids_and_logprobs_.as<float>() + options_.max_draws);
  }

  using Attend = void (*)(AttentionInputs<Number>, HeadShape);

  RollcallDecoderOptions options_;
  Device& device_;
  std::vector<std::int64_t> windows_;
  std::vector<std::uint8_t> rotates_;
  HeadShape shape_;
  Attend attend_;
  Parameters shared_;
  std::vector<Parameters> parameters_;  // by layer
  Memory residual_, delta_, normed_, qkv_, queries_, attended_, gate_up_, gated_, logits_;
  Memory final_;                       // of draws, after the last norm
  Memory ids_and_logprobs_, fetched_;  // [2, max_draws] on the GPU, and on the host
  Memory shares_, share_values_;       // of queries whose keys are split
  std::int64_t wanted_blocks_ = 0, share_rows_ = 0;
  Memory page_numbers_;  // [layers, pages, 2, kv_heads, kPagePositions, head_dim]
  std::int64_t pages_ = 0, layer_numbers_ = 0;
  std::vector<std::int32_t> free_pages_;
  std::vector<Cache> caches_;
  Memory kept_;  // [kept_slots_, hidden] by cache
  std::int64_t kept_slots_ = 0;
  std::unique_ptr<BatchLayout> layout_;
  Memory staging_, staged_, batch_;  // weights on their way; the batch on the host and the GPU
  std::size_t staged_bytes_ = 0;
  std::map<std::int64_t, std::shared_ptr<Device::Recording>> recordings_;  // by rows
};

}  // namespace

std::unique_ptr<GpuDecoder> make_gpu_decoder(const RollcallDecoderOptions& options,
                                             Device& device) {
  if (options.bfloat16 != 0) return std::make_unique<Decoder<BFloat16>>(options, device);
  return std::make_unique<Decoder<float>>(options, device);
}

}  // namespace rollcall::cuda
