// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "comms/turn.h"
#include "comms/weight_store.h"
#include "model/model_spec.h"
#include "model/weights.h"

namespace rollcall {

using SequenceId = std::int64_t;
class EngineBackend;
class PublishedWeights;

struct EngineOptions {
  std::int64_t max_context = 8192;    // tokens a sequence may hold, prompt included
  std::int64_t max_batch = 256;       // sequences decoded together
  at::ScalarType dtype = at::kFloat;  // of the policy's weights
  std::optional<int> gpu = {};        // the n-th of this host's, counted round; nothing: the CPU
  std::int64_t gpu_cache_bytes = 0;   // for keys and values on it; 0: most of what is free
};

// Samples from the policy with continuous batching: any sequence may start, stop or wait for a tool
// at any step. A prompt is prefilled once for all sequences that share it; the KV cache of a
// sequence is kept until close(), so a tool result costs only its own tokens; a GPU whose memory is
// full gives caches up and computes them again, by the weights of then. Batch-invariant on the CPU:
// a sequence's tokens and log-probabilities depend on its prompt, deltas, seed and the weights
// alone, not on what else runs or on its place in the batch. Single thread.
class Engine {
 public:
  // Throws Error if there is no such GPU, or too little memory.
  Engine(const ModelSpec&, const EngineOptions&);
  Engine(const ModelSpec&, const EngineOptions&, std::unique_ptr<EngineBackend>);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Packs what `weights` gives, one tensor at a time, as the policy of `version`, in the memory of
  // the version before. If it throws there is no policy. Sequences opened before keep their cache:
  // callers that must not mix versions close them first.
  void load(std::int64_t version, const TensorSource& weights);
  // The same of published weights, which a CPU uses in place: they must stay as they are until the
  // next load has returned. Of the version at hand, the same weights that have come to lie
  // elsewhere, prompts are not computed again.
  WeightsUse load(std::int64_t version, const PublishedWeights& weights);
  std::int64_t version() const;

  // Starts a sequence. The n-th token sampled in it uses the n-th draw of `seed`.
  SequenceId open(std::span<const std::int32_t> prompt, std::uint64_t seed);
  // Appends `delta` (may be empty) and asks for one turn. One turn at a time per sequence.
  void request_turn(SequenceId, std::span<const std::int32_t> delta, const SamplingOptions&);
  void close(SequenceId);  // abandons a running turn

  struct Finished {
    SequenceId sequence;
    Completion completion;
  };
  bool has_work() const;
  // One round: prefill what waits, then one decode step for all running sequences. Returns the
  // turns that ended.
  std::vector<Finished> step();

  std::int64_t length(SequenceId) const;  // tokens in the cache or about to be

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rollcall
