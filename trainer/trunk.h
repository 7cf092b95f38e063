// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

#include "model/decoder.h"
#include "trainer/packing.h"
#include "trainer/sharded_masters.h"
#include "trainer/trained_policy.h"

namespace rollcall {

class Communicator;

// A decoder in training, up to its last norm. Gradients and moments are as large as the masters:
// those of an adapter are small. Single thread.
class Trunk {
 public:
  // Trains the weights' own storage, and computes with them rounded to `dtype`.
  Trunk(const ModelSpec&, TrainedPolicy weights, Communicator&, at::ScalarType dtype);

  // Takes up the masters' present values: before hidden(), whenever they have changed. They must
  // not change between a forward pass and its backward pass, which both read them.
  void bind() { weights_.bind(decoder_, masters_.leaves()); }

  // Whether passes over `batches` keep their activations: `recompute` says so, or this machine's
  // memory does: they are kept if that takes at most half of a learner's share of what is
  // available. The rest is for what comes beside them.
  Activations activations(std::optional<bool> recompute,
                          std::span<const PackedBatch> batches) const;

  // [N, hidden]: the states that predict the batch's action tokens.
  at::Tensor hidden(const PackedBatch&, Activations = Activations::kKept) const;

  const Decoder& decoder() const { return decoder_; }
  const TrainedPolicy& weights() const { return weights_; }
  ShardedMasters& masters() { return masters_; }

 private:
  const Communicator& communicator_;
  Decoder decoder_;
  TrainedPolicy weights_;
  ShardedMasters masters_;
};

}  // namespace rollcall
