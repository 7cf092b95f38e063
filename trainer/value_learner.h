// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "trainer/checkpoint.h"
#include "trainer/trunk.h"

namespace rollcall {

// What values shall come to, for each micro-batch of a step: tensors [N] over its action tokens.
struct ValueTargets {
  std::vector<at::Tensor> old_values;  // before the step
  std::vector<at::Tensor> returns;
  double tokens = 0;  // of the step, over all learners
};

struct ValueUpdateOptions {
  AdamWOptions adamw;
  double max_grad_norm = 1.0;                      // global L2; 0: no clipping
  double value_clip = 0;                           // 0: none
  std::optional<bool> activation_checkpointing{};  // none: as memory says
};

struct ValueStats {
  double loss = 0;           // of the whole step
  double clip_fraction = 0;  // of its tokens, those whose gradient value_clip holds back
  double grad_norm_l2 = 0;   // before clipping
  bool skipped = false;      // gradient not finite: nothing changed
};

// The critic of one data-parallel learner: V = w * hidden + b at the states that predict action
// tokens, 0 everywhere at first. The states come from a trunk of its own, which is trained with the
// head, or from the policy's. Everything but pull() is collective. Single thread.
class ValueLearner {
 public:
  ValueLearner(Trunk& of_the_policy, Communicator&);  // refers to the trunk
  // `trunk` is for a decoder of this spec and becomes the critic's own.
  ValueLearner(const ModelSpec&, TrainedPolicy trunk, Communicator&, at::ScalarType dtype);

  bool owns_trunk() const { return own_ != nullptr; }

  // [N] values of each batch's action tokens under the present weights, no gradient.
  std::vector<at::Tensor> values(std::span<const PackedBatch>,
                                 const std::function<void()>& between);

  // One optimizer step on the value loss: of the head and the critic's own trunk, or of the head
  // alone. `between` runs after every micro-batch.
  ValueStats update(std::span<const PackedBatch>, const ValueTargets&, const ValueUpdateOptions&,
                    const std::function<void()>& between);

  // The same as part of an update of the policy's trunk: begin(), pull() for each micro-batch,
  // finish(). pull() gives a scalar whose gradient for `hidden` is `coefficient` times that of the
  // value loss.
  void begin(const ValueTargets&, const ValueUpdateOptions&);
  at::Tensor pull(std::size_t batch, const at::Tensor& hidden, double coefficient);
  ValueStats finish();

  CriticState state();                  // as ShardedMasters::state()
  bool fits(const CriticState&) const;  // whether restore() can take it
  void restore(const CriticState&);

 private:
  void bind_head();
  at::Tensor share(std::size_t batch, const at::Tensor& hidden);
  std::vector<ShardedMasters*> trained();

  Communicator& communicator_;
  std::unique_ptr<Trunk> own_;
  Trunk& trunk_;
  ShardedMasters masters_;  // the head's
  LinearWeight head_;
  // Of the update under way.
  ValueTargets targets_;
  ValueUpdateOptions options_;
  double loss_ = 0, clipped_ = 0;
};

}  // namespace rollcall
