// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <limits>
#include <map>

#include "model/decoder.h"
#include "model/engine_backend.h"
#include "model/kernel_calls.h"
#include "model/kv_segment.h"
#include "model/query_stretch.h"

namespace rollcall {
namespace {

// Of a key or value: each goes into a line of its own, which main memory has.
constexpr std::int64_t kStoreFlops = 100;
constexpr std::int64_t kSampleFlops = 32;  // of a logit

// Batch-invariant: a row's bits depend on its sequence alone.
class CpuBackend final : public EngineBackend {
 public:
  CpuBackend(const ModelSpec& spec, const EngineOptions& options)
      : spec_(spec),
        decoder_(spec, options.dtype),
        shape_{spec.heads, spec.kv_heads, spec.head_dim,
               static_cast<float>(decoder_.attention_scale())} {}

  void load(const TensorSource& weights) override {
    const at::NoGradGuard no_grad;
    decoder_.bind(weights);
  }
  WeightsUse load(const PublishedWeights& weights) override {
    const at::NoGradGuard no_grad;
    decoder_.bind(weights);
    return WeightsUse::kInPlace;
  }

  Cache open_cache() override {
    caches_.emplace(next_, Kept{KvSegment(shape_, spec_.layers), {}});
    return next_++;
  }
  void close_cache(Cache cache) override { caches_.erase(cache); }

  std::int64_t page_positions() const override { return 1; }
  std::int64_t pages_free() const override { return std::numeric_limits<std::int64_t>::max(); }

  std::vector<SampledToken> step(const Batch& batch) override {
    const at::NoGradGuard no_grad;
    const at::Tensor hidden = compute(batch);
    for (const auto& [cache, row] : batch.keeps) {
      const float* from = hidden.const_data_ptr<float>() + row * spec_.hidden_size;
      caches_.at(cache).last_hidden.assign(from, from + spec_.hidden_size);
    }
    return sample(batch, hidden);
  }

 private:
  struct Kept {
    KvSegment segment;
    std::vector<float> last_hidden;
  };
  // A stretch's segments, and the first position that it has in its own.
  struct Place {
    KvSegment* own;
    const KvSegment* prefix;  // null: none
    std::int64_t first;
  };

  at::Tensor compute(const Batch& batch) {
    const auto n = static_cast<std::int64_t>(batch.tokens.size());
    if (n == 0) return at::empty({0, spec_.hidden_size}, at::kFloat);
    at::Tensor tokens = at::empty({n}, at::kLong), positions = at::empty({n}, at::kLong);
    std::copy(batch.tokens.begin(), batch.tokens.end(), tokens.data_ptr<std::int64_t>());
    std::vector<Place> places;
    for (const Stretch& s : batch.stretches) {
      KvSegment& own = caches_.at(s.cache).segment;
      const KvSegment* prefix = s.prefix < 0 ? nullptr : &caches_.at(s.prefix).segment;
      places.push_back({&own, prefix, own.length()});
      const std::int64_t first = own.length() + (prefix == nullptr ? 0 : prefix->length());
      for (std::int64_t i = 0; i < s.count; ++i)
        positions.data_ptr<std::int64_t>()[s.row + i] = first + i;
      own.extend(s.count);
    }
    return decoder_.hidden(
        tokens, positions,
        [&](std::int64_t layer, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
          return attend(batch, places, layer, q, k, v);
        });
  }

  at::Tensor attend(const Batch& batch, const std::vector<Place>& places, std::int64_t layer,
                    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
    at::Tensor out = at::empty_like(q);
    const std::int64_t kv_row = shape_.kv_heads * shape_.head_dim;
    const std::int64_t rows_of_one = q.size(0) / std::ssize(places);
    parallel(std::ssize(places), kStoreFlops * kv_row * rows_of_one,
             [&](std::int64_t begin, std::int64_t end) {
               for (std::int64_t j = begin; j < end; ++j) {
                 const Stretch& s = batch.stretches[static_cast<std::size_t>(j)];
                 const Place& place = places[static_cast<std::size_t>(j)];
                 for (std::int64_t i = 0; i < s.count; ++i)
                   place.own->store(layer, place.first + i,
                                    k.const_data_ptr<float>() + (s.row + i) * kv_row,
                                    v.const_data_ptr<float>() + (s.row + i) * kv_row);
               }
             });
    std::vector<QueryStretch> stretches;
    for (std::size_t j = 0; j < places.size(); ++j) {
      const Stretch& s = batch.stretches[j];
      const auto& [own, prefix, first] = places[j];
      stretches.push_back(
          {s.row, s.count, first,
           prefix == nullptr ? KeyValueView{} : prefix->view(layer, prefix->length()),
           own->view(layer, first + s.count)});
    }
    attend_stretches(stretches, shape_, spec_.window(layer), q.const_data_ptr<float>(),
                     out.data_ptr<float>(), nullptr);
    return out;
  }

  std::vector<SampledToken> sample(const Batch& batch, const at::Tensor& hidden) const {
    const auto n = static_cast<std::int64_t>(batch.draws.size());
    std::vector<SampledToken> drawn(batch.draws.size());
    if (n == 0) return drawn;
    at::Tensor rows = at::empty({n, spec_.hidden_size}, at::kFloat);
    for (std::int64_t i = 0; i < n; ++i) {
      const Draw& draw = batch.draws[static_cast<std::size_t>(i)];
      const float* from = draw.row < 0
                              ? caches_.at(draw.cache).last_hidden.data()
                              : hidden.const_data_ptr<float>() + draw.row * spec_.hidden_size;
      std::copy_n(from, spec_.hidden_size, rows.data_ptr<float>() + i * spec_.hidden_size);
    }
    const at::Tensor logits = linear(rows, decoder_.head());
    const std::int64_t vocabulary = logits.size(1);
    parallel(n, kSampleFlops * vocabulary, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const Draw& draw = batch.draws[static_cast<std::size_t>(i)];
        const std::int64_t ids = draw.sampled_ids > 0 ? draw.sampled_ids : vocabulary;
        drawn[static_cast<std::size_t>(i)] = sample_token(
            {logits.const_data_ptr<float>() + i * vocabulary, static_cast<std::size_t>(ids)},
            draw.uniform);
      }
    });
    return drawn;
  }

  ModelSpec spec_;
  Decoder decoder_;
  AttentionShape shape_;
  Cache next_ = 0;
  std::map<Cache, Kept> caches_;
};

}  // namespace

std::unique_ptr<EngineBackend> make_cpu_backend(const ModelSpec& spec,
                                                const EngineOptions& options) {
  return std::make_unique<CpuBackend>(spec, options);
}

}  // namespace rollcall
