// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "model/ops.h"
#include "trainer/gradient_noise.h"
#include "trainer/mismatch.h"
#include "trainer/packing.h"
#include "trainer/trunk.h"

namespace rollcall {

class Communicator;

struct UpdateOptions {
  AdamWOptions adamw;
  double max_grad_norm = 1.0;  // global L2; 0: no clipping
  double max_logprob_gap = 0;  // mean |current - behavior|, nats; 0: no alarm
  double skip_above = 0;       // norm before clipping, beyond which nothing is changed; 0: none
  std::optional<bool> activation_checkpointing{};  // none: as memory says
};

struct UpdateStats {
  double loss = 0;          // of the whole step
  double grad_norm_l2 = 0;  // before clipping
  bool skipped = false;     // gradient not finite: nothing changed
  bool spiked = false;      // its norm is above skip_above: likewise
  double action_tokens = 0;
  double entropy_mean = 0;  // nats per action token
  Mismatch mismatch;        // current against behavior, over the action tokens, before the update
  std::optional<GradientNoise::Estimate> noise;  // none of one learner's single micro-batch
  std::optional<double>
      seconds_gradient_sum;  // waited for, after the last backward pass; none alone
};

// The policy of one data-parallel learner, in training. update(), state and restore are collective.
// Single thread.
class Learner {
 public:
  // Trains the policy's own storage, and computes with its weights rounded to `dtype`, as the
  // sampler does.
  Learner(const ModelSpec&, TrainedPolicy policy, std::int64_t valid_ids, Communicator&,
          at::ScalarType dtype = at::kFloat);

  // This micro-batch's share of the step's loss, differentiable in `current.logprobs` [N].
  using Loss = std::function<at::Tensor(std::size_t batch, const TokenLogprobs& current)>;

  // What else pulls at the trunk: a scalar made of its states at the action tokens, [N, hidden].
  // Its gradient joins that of the loss, its value does not. Undefined: nothing.
  using Pull = std::function<at::Tensor(std::size_t batch, const at::Tensor& hidden)>;

  // [N] log-probabilities of each batch's action tokens under the present weights, no gradient.
  std::vector<at::Tensor> logprobs(std::span<const PackedBatch> batches,
                                   const std::function<void()>& between);

  // One optimizer step: gradients of `batches` (this member's share; may be empty) summed over
  // members, clipped, applied. A gradient of zero changes nothing; one that is not finite skips the
  // step on all members. `between` runs
  // after every micro-batch: the lead polls its links there. Throws an alarm on all members, with
  // nothing changed, if sampler and learner disagree by more than max_logprob_gap.
  UpdateStats update(std::span<const PackedBatch> batches, const Loss& loss, const UpdateOptions&,
                     const std::function<void()>& between, const Pull& pull = {});

  Trunk& trunk() { return trunk_; }
  const TrainedPolicy& policy() const { return trunk_.weights(); }
  const FlatWeights& masters() const { return policy().masters(); }

  OptimizedWeights state() { return trunk_.masters().state(); }  // see there
  void restore(const OptimizedWeights& state) { trunk_.masters().restore(state); }

 private:
  TokenLogprobs logprobs_of(const at::Tensor& hidden, const PackedBatch&) const;
  void accumulate(const PackedBatch&, std::size_t index, const Loss&, const Pull&, Activations,
                  UpdateStats&);
  void reduce_stats(UpdateStats&, GradientNoise&);

  Communicator& communicator_;
  Trunk trunk_;
  std::int64_t valid_ids_;
};

}  // namespace rollcall
