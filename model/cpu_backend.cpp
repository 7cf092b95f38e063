// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>
#include <map>
#include <span>

#include "comms/error.h"
#include "model/cpu_forward.h"
#include "model/cpu_team.h"
#include "model/engine_backend.h"

namespace rollcall {
namespace {

constexpr std::int64_t kSampleFlops = 32;  // of a logit
constexpr std::size_t kMostDraws = 64;     // whose logits are in memory at once

// Batch-invariant: a row's bits depend on its sequence alone.
class CpuBackend final : public EngineBackend {
 public:
  CpuBackend(const ModelSpec& spec, const EngineOptions& options)
      : spec_(spec), decoder_(spec, options.dtype), forward_(make_cpu_forward(decoder_)) {}

  void load(const TensorSource& weights) override {
    const at::NoGradGuard no_grad;
    decoder_.bind([&](const std::string& name) {
      const at::Tensor values = weights(name);
      if (!values.defined()) return values;
      if (values.scalar_type() == at::kDouble || !values.is_cpu())
        throw Error("engine: '" + name + "' is not of a type that kernels compute with");
      return values.detach();
    });
  }
  WeightsUse load(const PublishedWeights& weights) override {
    const at::NoGradGuard no_grad;
    decoder_.bind(weights);
    return WeightsUse::kInPlace;
  }

  Cache open_cache() override {
    caches_.emplace(
        next_, Kept{KvSegment(decoder_.attention_shape(), spec_.layers, decoder_.dtype()), {}});
    return next_++;
  }
  void close_cache(Cache cache) override { caches_.erase(cache); }

  std::int64_t page_positions() const override { return 1; }
  std::int64_t pages_free() const override { return std::numeric_limits<std::int64_t>::max(); }

  std::vector<SampledToken> step(const Batch& batch) override {
    const float* state = batch.tokens.empty() ? nullptr : compute(batch);
    const std::int64_t width = spec_.hidden_size;
    for (const auto& [cache, row] : batch.keeps) {
      caches_.at(cache).last_hidden.assign(state, state + width);
      state += width;
    }
    std::vector<float> states;  // of all draws
    for (const Draw& draw : batch.draws) {
      if (draw.row < 0) {
        const auto& kept = caches_.at(draw.cache).last_hidden;
        states.insert(states.end(), kept.begin(), kept.end());
      } else {
        states.insert(states.end(), state, state + width);
        state += width;
      }
    }
    std::vector<SampledToken> drawn(batch.draws.size());
    for (std::size_t first = 0; first < drawn.size(); first += kMostDraws) {
      const std::size_t count = std::min(kMostDraws, drawn.size() - first);
      sample(std::span(batch.draws).subspan(first, count),
             states.data() + static_cast<std::int64_t>(first) * width, drawn.data() + first);
    }
    return drawn;
  }

 private:
  struct Kept {
    KvSegment segment;
    std::vector<float> last_hidden;
  };

  // States of the rows that the batch keeps or draws from, in this order.
  const float* compute(const Batch& batch) {
    std::vector<CpuForward::Stretch> stretches;
    for (const Stretch& s : batch.stretches)
      stretches.push_back({&caches_.at(s.cache).segment,
                           s.prefix < 0 ? nullptr : &caches_.at(s.prefix).segment, s.count});
    std::vector<std::int64_t> wanted;
    for (const auto& keep : batch.keeps) wanted.push_back(keep.row);
    for (const Draw& draw : batch.draws)
      if (draw.row >= 0) wanted.push_back(draw.row);
    return forward_->hidden(batch.tokens, stretches, wanted);
  }

  void sample(std::span<const Draw> draws, const float* states, SampledToken* drawn) {
    const float* logits = forward_->logits(states, std::ssize(draws));
    const std::int64_t vocabulary = decoder_.head().out;
    parallel(std::ssize(draws), kSampleFlops * vocabulary,
             [&](std::int64_t begin, std::int64_t end) {
               for (std::int64_t i = begin; i < end; ++i) {
                 const Draw& draw = draws[static_cast<std::size_t>(i)];
                 const std::int64_t ids = draw.sampled_ids > 0 ? draw.sampled_ids : vocabulary;
                 drawn[i] = sample_token({logits + i * vocabulary, static_cast<std::size_t>(ids)},
                                         draw.uniform);
               }
             });
  }

  ModelSpec spec_;
  Decoder decoder_;
  std::unique_ptr<CpuForward> forward_;
  Cache next_ = 0;
  std::map<Cache, Kept> caches_;
};

}  // namespace

std::unique_ptr<EngineBackend> make_cpu_backend(const ModelSpec& spec,
                                                const EngineOptions& options) {
  return std::make_unique<CpuBackend>(spec, options);
}

}  // namespace rollcall
