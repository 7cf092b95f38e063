// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "trainer/losses.h"
#include "trainer/packing.h"
#include "trainer/train_options.h"

namespace rollcall {

class Communicator;

// What `algorithm:` makes of one step's micro-batches: corrections first, since what they reject
// leaves the denominators of all of them, then each batch's share of the loss. Single thread.
class StepLoss {
 public:
  // `old_logprobs`: [N] of each batch under the weights at the start of the step; needed only with
  // corrections, and with the anchor "old" for all updates but the step's first, in which share()
  // gets them; else empty. `reference_logprobs`: likewise, with a KL in the loss. Collective.
  StepLoss(const AlgorithmOptions&, std::span<const PackedBatch> batches,
           std::span<const at::Tensor> old_logprobs, std::span<const at::Tensor> reference_logprobs,
           Communicator&);

  // Scalar, differentiable in `current_logprobs` [N].
  at::Tensor share(std::size_t batch, const at::Tensor& current_logprobs);

  struct Stats {
    double clip_high_fraction = 0, clip_low_fraction = 0;  // of the tokens that were not rejected
    double tokens_rejected = 0, tokens_rejected_positive = 0;  // in all; with advantages above 0
    std::optional<double> reference_kl_mean;                   // with a KL: k3, nats per token
  };
  Stats stats() const;  // of the shares so far, over all learners; collective

 private:
  void correct(std::span<const Correction>, std::size_t batch, const at::Tensor& old_logprobs);

  Communicator& communicator_;
  LossOptions options_;
  bool anchor_is_old_;
  std::vector<PackedBatch> batches_;      // their actions without the rejected tokens
  std::vector<at::Tensor> old_logprobs_;  // the anchor's; empty: the current ones
  std::vector<at::Tensor> kept_;          // places of what is left; empty without corrections
  std::vector<at::Tensor> weights_;
  std::vector<at::Tensor> reference_logprobs_;  // empty without a KL
  std::vector<LossDenominators> denominators_;
  double rejected_ = 0, rejected_positive_ = 0;  // tokens, on this learner
  double clipped_high_ = 0, clipped_low_ = 0;    // likewise
  double reference_kl_ = 0;                      // sum over tokens
};

}  // namespace rollcall
