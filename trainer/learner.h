// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/decoder.h"
#include "model/ops.h"
#include "trainer/mismatch.h"
#include "trainer/optimizer.h"
#include "trainer/packing.h"
#include "trainer/trained_policy.h"

namespace rollcall {

class Communicator;

struct UpdateOptions {
  AdamWOptions adamw;
  double max_grad_norm = 1.0;  // global L2; 0: no clipping
  double max_logprob_gap = 0;  // mean |current - behavior|, nats; 0: no alarm
  bool activation_checkpointing = false;
};

struct UpdateStats {
  double loss = 0;          // of the whole step
  double grad_norm_l2 = 0;  // before clipping
  bool skipped = false;     // gradient not finite: nothing changed
  double action_tokens = 0;
  double entropy_mean = 0;  // nats per action token
  Mismatch mismatch;        // current against behavior, over the action tokens, before the update
};

// fp32 masters, gradients and AdamW of one data-parallel learner; moments are sharded over the
// members of the communicator (ZeRO-1). Gradients and moments are as large as the masters: those of
// an adapter are small. update(), state and restore are collective. Single thread.
class Learner {
 public:
  // Trains the policy's own storage, and computes with its weights rounded to `dtype`, as the
  // sampler does.
  Learner(const ModelSpec&, TrainedPolicy policy, std::int64_t valid_ids, Communicator&,
          at::ScalarType dtype = at::kFloat);

  // This micro-batch's share of the step's loss, differentiable in `current.logprobs` [N].
  using Loss = std::function<at::Tensor(std::size_t batch, const TokenLogprobs& current)>;

  // [N] log-probabilities of each batch's action tokens under the present weights, no gradient.
  std::vector<at::Tensor> logprobs(std::span<const PackedBatch> batches,
                                   const std::function<void()>& between);

  // One optimizer step: gradients of `batches` (this member's share; may be empty) summed over
  // members, clipped, applied. A gradient of zero changes nothing; one that is not finite skips the
  // step on all members. `between` runs
  // after every micro-batch: the lead polls its links there. Throws an alarm on all members, with
  // nothing changed, if sampler and learner disagree by more than max_logprob_gap.
  UpdateStats update(std::span<const PackedBatch> batches, const Loss& loss, const UpdateOptions&,
                     const std::function<void()>& between);

  const TrainedPolicy& policy() const { return policy_; }
  const FlatWeights& masters() const { return policy_.masters(); }

  // Moments of all shards, gathered; every member gets them.
  struct OptimizerState {
    std::int64_t steps = 0;
    std::vector<float> first_moment, second_moment;
  };
  OptimizerState optimizer_state();
  void restore(std::span<const float> masters, const OptimizerState&);

 private:
  TokenLogprobs forward(const PackedBatch&, Activations) const;
  void accumulate(const PackedBatch&, std::size_t index, const Loss&, Activations, UpdateStats&);
  void reduce_stats(UpdateStats&);
  double reduced_grad_norm();
  void apply(double factor, const AdamWOptions&);

  Communicator& communicator_;
  Decoder decoder_;
  TrainedPolicy policy_;
  std::int64_t valid_ids_, parameters_, shard_;  // shard_: floats per member, padded
  NamedTensors leaves_;                          // the masters
  std::vector<float> gradients_;                 // padded to size() shards
  std::vector<std::uint8_t> decay_;              // of this member's shard
  AdamW optimizer_;
};

}  // namespace rollcall
