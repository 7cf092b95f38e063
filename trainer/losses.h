// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string>
#include <string_view>

#include "trainer/aggregation.h"
#include "trainer/kl.h"

namespace rollcall {

enum class LossKind { kPpoClip, kCispo, kReinforce, kGspo, kDppoTv, kSapo };
LossKind loss_kind(const std::string& name);  // throws an input Error listing the names
std::span<const std::string_view> loss_names();

struct LossOptions {
  LossKind kind = LossKind::kCispo;
  Aggregation aggregation = Aggregation::kPromptMean;  // gspo: always seq_mean_token_mean
  double constant = 1;                                 // divisor of seq_mean_token_sum_const
  double clip_low =
      1.0;  // ppo_clip, cispo, gspo: the ratio is kept in [1 - clip_low, 1 + clip_high]
  double clip_high = 4.0;
  double dual_clip = 0;        // ppo_clip: bound of the loss at -dual_clip * A where A < 0; 0 off
  double divergence = 0.2;     // dppo_tv: how far a token's probability may have moved
  double ratio_cap = 20;       // dppo_tv
  double tau_positive = 1;     // sapo: temperature where A > 0
  double tau_negative = 1.05;  // sapo: where A <= 0
  KlOptions kl = {};
};

// What some losses take besides; undefined tensors are left out.
struct LossInputs {
  at::Tensor weights;             // [N] factor on each token's policy loss, not on its KL; or 1
  at::Tensor reference_logprobs;  // [N] needed where kl.coef is not 0
};

struct LossStats {
  at::Tensor loss;  // scalar, differentiable in current_logprobs; this micro-batch's share
  // Tokens that the clip holds back, or dppo_tv drops (divide by the step's tokens). Those whose
  // advantage pushes outwards; of cispo all beyond the bounds; none of reinforce and sapo.
  double clip_high_fraction_sum = 0;
  double clip_low_fraction_sum = 0;
};

// This micro-batch's share of the policy loss (to be minimised); shares add up to the step's loss.
// r = exp(clamp(current - anchor, -20, 20)). Formulas: docs/algorithms.md. Pure.
LossStats policy_loss(const ActionTokens&, const at::Tensor& current_logprobs,
                      const LossDenominators&, const LossOptions&, const LossInputs& = {});

}  // namespace rollcall
