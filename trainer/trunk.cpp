// SPDX-License-Identifier: Apache-2.0
#include "trainer/trunk.h"

#include <utility>

namespace rollcall {

Trunk::Trunk(const ModelSpec& spec, TrainedPolicy weights, Communicator& communicator,
             at::ScalarType dtype)
    : decoder_(spec, dtype),
      weights_(std::move(weights)),
      masters_(weights_.masters(), communicator) {}

at::Tensor Trunk::hidden(const PackedBatch& batch, Activations activations) const {
  return decoder_.packed_hidden(batch.tokens, batch.segments, activations)
      .index_select(0, batch.rows);
}

}  // namespace rollcall
