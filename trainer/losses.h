// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

enum class LossKind { kPpoClip, kCispo, kReinforce, kGspo };
enum class Aggregation { kTokenMean, kSeqMeanTokenMean, kSeqMeanTokenSumConst, kPromptMean };
LossKind loss_kind(const std::string& name);  // throw an input Error listing the names
Aggregation aggregation_kind(const std::string& name);
std::span<const std::string_view> loss_names();
std::span<const std::string_view> aggregation_names();

struct LossOptions {
  LossKind kind = LossKind::kCispo;
  Aggregation aggregation = Aggregation::kPromptMean;
  double clip_low = 1.0;  // the ratio is kept in [1 - clip_low, 1 + clip_high]
  double clip_high = 4.0;
  double dual_clip = 0;  // ppo_clip: bound of the loss at -dual_clip * A where A < 0; 0 off
  double constant = 1;   // seq_mean_token_sum_const: the divisor
};

// The action tokens of some sequences, flattened: N tokens of S sequences of P prompts. All tensors
// on one device, float32 or float64 ([N]) and int64 ([N], [S]). A sequence is never split between
// two ActionTokens; a sequence without tokens is allowed.
struct ActionTokens {
  at::Tensor anchor_logprobs;  // [N] log-probabilities of the policy the ratio is taken against
  at::Tensor advantages;       // [N] the sequence's advantage at each of its tokens
  at::Tensor sequence;         // [N] int64, 0..S-1, non-decreasing
  at::Tensor prompt;           // [S] int64, 0..P-1
};

// Denominators over the whole step, all learners and micro-batches: a layout must not change the
// loss.
struct LossDenominators {
  double tokens = 0;                       // active tokens
  double sequences = 0;                    // sequences with an active token
  double prompts = 0;                      // prompts with an active token
  std::vector<double> tokens_of_prompt;    // [P] of this micro-batch's prompts, step-wide counts
  std::vector<double> tokens_of_sequence;  // [S]
};

struct LossStats {
  at::Tensor loss;  // scalar, differentiable in current_logprobs; this micro-batch's share
  // Tokens whose ratio the clip holds back (divide by the step's tokens). ppo_clip and gspo count
  // only where the advantage pushes outwards, cispo always, reinforce never.
  double clip_high_fraction_sum = 0;
  double clip_low_fraction_sum = 0;
};

// This micro-batch's share of the policy loss (to be minimised); shares add up to the step's loss.
// r = exp(clamp(current - anchor, -20, 20)). Formulas: goldens README 5, algorithms.md 1.1. Pure.
LossStats policy_loss(const ActionTokens&, const at::Tensor& current_logprobs,
                      const LossDenominators&, const LossOptions&);

}  // namespace rollcall
