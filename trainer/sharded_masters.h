// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/weights.h"
#include "trainer/optimizer.h"

namespace rollcall {

class Communicator;

// fp32 masters in training: leaves that receive gradients, and AdamW whose moments are sharded over
// the members of the communicator (ZeRO-1). What is said to be collective gives every member the
// same. Single thread.
class ShardedMasters {
 public:
  ShardedMasters(FlatWeights masters, Communicator&);  // trains their storage

  const FlatWeights& masters() const { return masters_; }
  const NamedTensors& leaves() const { return leaves_; }

  void clear_gradients();
  double squared_own_norm() const;  // of this member's gradients, before they are summed
  void sum_gradients();             // over the members, each keeps its shard's sums; collective
  double squared_grad_norm();       // of the sums; collective
  // One step by the sums times `factor`; collective.
  void step(double factor, const AdamWOptions&);

  // Moments of all shards, gathered.
  struct State {
    std::int64_t steps = 0;
    std::vector<float> first_moment, second_moment;
  };
  State state();  // collective
  void restore(std::span<const float> masters, const State&);

 private:
  Communicator& communicator_;
  FlatWeights masters_;
  std::int64_t parameters_, shard_;  // shard_: floats per member, padded
  NamedTensors leaves_;
  std::vector<float> gradients_;     // padded to size() shards
  std::vector<std::uint8_t> decay_;  // of this member's shard
  AdamW optimizer_;
};

}  // namespace rollcall
