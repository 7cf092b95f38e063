// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/decoder.h"
#include "model/kv_segment.h"

namespace rollcall {

// The forward pass of the CPU's engine: what Decoder::packed_hidden() computes, to the bit, of
// tokens that follow what caches hold. Each call is one parallel region, whose threads deal
// themselves tiles of one stage after another; it makes no tensors, and keeps its memory for the
// next call.
class CpuForward {
 public:
  virtual ~CpuForward() = default;

  // The next `count` tokens of a batch: of one sequence, behind what `own` holds, and seeing all of
  // `prefix`.
  struct Stretch {
    KvSegment* own;
    const KvSegment* prefix;  // null: none
    std::int64_t count;
  };

  // Appends the tokens' keys and values to the caches of `stretches`, which are all of the batch.
  // Returns the final hidden states of the rows `wanted`, each once, [wanted, hidden_size] after
  // the last norm, until the next call: of the others the last layer computes no more than the
  // cache needs. Token ids must be in the vocabulary.
  virtual const float* hidden(const std::vector<std::int32_t>& tokens,
                              const std::vector<Stretch>& stretches,
                              const std::vector<std::int64_t>& wanted) = 0;

  // hidden [rows, hidden_size] -> [rows, vocabulary], until the next call.
  virtual const float* logits(const float* hidden, std::int64_t rows) = 0;
};

// With the weights of `decoder`, which must stay where it is and be bound to panels (to weights
// that need no gradients).
std::unique_ptr<CpuForward> make_cpu_forward(const Decoder& decoder);

}  // namespace rollcall
