// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/weights.h"
#include "trainer/optimized_weights.h"
#include "trainer/optimizer.h"
#include "trainer/shard_layout.h"

namespace rollcall {

class Communicator;

// fp32 masters in training: leaves that receive gradients, and AdamW whose moments are sharded over
// the members of the communicator (ZeRO-1). What is said to be collective gives every member the
// same. Single thread.
class ShardedMasters {
 public:
  ShardedMasters(FlatWeights masters, Communicator&);  // trains their storage
  ShardedMasters(const ShardedMasters&) = delete;
  ShardedMasters& operator=(const ShardedMasters&) = delete;

  const FlatWeights& masters() const { return masters_; }
  const NamedTensors& leaves() const { return leaves_; }

  void clear_gradients();
  double squared_own_norm() const;  // of this member's gradients so far; not while they are summed
  // The next backward pass is this member's last before sum_gradients(): gradients are summed over
  // the members as they come (Li et al. 2020, 2006.15704, section 3.2). Until then no other
  // collective may be called.
  void begin_sums();
  // Sums what has not been yet, over the members, each of which keeps its shard's sums; collective.
  // Returns the squared norm of what this member gave, or 0 of a member alone.
  double sum_gradients();
  double squared_grad_norm();  // of the sums; collective
  // One step by the sums times `factor`, which leaves no gradients; collective.
  void step(double factor, const AdamWOptions&);

  // Of all shards on member 0, nothing on the others; not while gradients are summed. What this
  // object holds already is not copied: it changes with the next step. Collective.
  OptimizedWeights state();
  void restore(const OptimizedWeights&);  // not while gradients are summed

 private:
  class Arrival;

  std::span<float> bucket(std::vector<float>& all, std::int64_t index) const;
  void add_arrival(ShardLayout::Range of);
  void sum_next_bucket();
  void gather(std::vector<float>& all);

  Communicator& communicator_;
  FlatWeights masters_;
  std::int64_t parameters_;
  ShardLayout layout_;
  NamedTensors leaves_;
  std::vector<float> gradients_;     // of all buckets
  std::vector<std::uint8_t> decay_;  // of this member's shard
  AdamW optimizer_;

  std::vector<int> leaves_of_;   // of each bucket, those that have a part in it
  std::vector<int> awaited_;     // of them, without a gradient yet; empty: no backward pass is last
  std::int64_t unsummed_ = 0;    // buckets; the last is summed first, as its gradients come first
  double squared_own_norm_ = 0;  // of the buckets that are being summed
};

}  // namespace rollcall
