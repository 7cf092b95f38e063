// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/engine.h"
#include "model/sampling.h"

struct RollcallCudaPlugin;

namespace rollcall {

// Most rows of a round that prefill; fewer where they take long.
constexpr std::int64_t kMostPrefillRows = 1024;

// Where an engine computes: the weights, the caches of keys and values, and the forward pass down
// to sampled tokens. Throws Error. Single thread.
class EngineBackend {
 public:
  virtual ~EngineBackend() = default;

  // Takes the weights up, in the memory of those before if it is its own; caches stay.
  virtual void load(const TensorSource& weights) = 0;
  // The same of published weights. Those that it uses in place must stay as they are until the next
  // load has returned.
  virtual WeightsUse load(const PublishedWeights& weights) = 0;

  // Keys and values of consecutive positions, growing at the end.
  using Cache = std::int64_t;
  virtual Cache open_cache() = 0;
  virtual void close_cache(Cache) = 0;

  // Caches grow by whole pages of so many positions, as long as there are any.
  virtual std::int64_t page_positions() const = 0;
  virtual std::int64_t pages_free() const = 0;

  // Consecutive tokens of one sequence, appended to `cache` and seeing all of `prefix`.
  struct Stretch {
    Cache cache, prefix;      // prefix -1: none
    std::int64_t row, count;  // of the batch
  };
  // A token behind a row of the batch; row -1: behind what was kept with `cache`.
  struct Draw {
    std::int64_t row;
    Cache cache;
    std::int32_t sampled_ids;  // only ids below; 0: all
    double uniform;
  };
  struct Batch {
    std::vector<std::int32_t> tokens;
    std::vector<Stretch> stretches;  // all rows, in order
    struct Keep {
      Cache cache;
      std::int64_t row;
    };
    std::vector<Keep> keeps;  // rows whose last state stays with the cache, for later draws
    std::vector<Draw> draws;
  };
  // Of each draw. At most kMostPrefillRows and a row for each of EngineOptions::max_batch, as many
  // draws as that, and no more pages than are free.
  virtual std::vector<SampledToken> step(const Batch&) = 0;
};

// Batch-invariant, see Engine.
std::unique_ptr<EngineBackend> make_cpu_backend(const ModelSpec&, const EngineOptions&);

// On the GPU of the options. Matrices, caches and the inputs of products are of the policy's type,
// sums and the residual stream are float32. Other bits than the CPU's, and the sizes of a batch's
// products can reach them.
std::unique_ptr<EngineBackend> make_gpu_backend(const ModelSpec&, const EngineOptions&);
// The same on `device`, by the functions of a plugin that outlives it.
std::unique_ptr<EngineBackend> make_gpu_backend(const ModelSpec&, const EngineOptions&,
                                                const RollcallCudaPlugin&, int device);

}  // namespace rollcall
