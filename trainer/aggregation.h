// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

// How token losses become one number; length and group biases follow from it (algorithms.md 1.3).
enum class Aggregation { kTokenMean, kSeqMeanTokenMean, kSeqMeanTokenSumConst, kPromptMean };
Aggregation aggregation_kind(const std::string& name);  // throws an input Error listing the names
std::span<const std::string_view> aggregation_names();

// The action tokens of some sequences, flattened: N tokens of S sequences of P prompts. All tensors
// on one device, float32 or float64 ([N]) and int64 ([N], [S]). A sequence is never split between
// two ActionTokens; a sequence without tokens is allowed.
struct ActionTokens {
  at::Tensor anchor_logprobs;  // [N] log-probabilities of the policy the ratio is taken against
  at::Tensor advantages;       // [N] often the same for all tokens of a sequence
  at::Tensor sequence;         // [N] int64, 0..S-1, non-decreasing
  at::Tensor prompt;           // [S] int64, 0..P-1
};

// The tokens at `kept` ([K] int64, ascending); their sequences stay, also those left without
// tokens.
ActionTokens select_tokens(const ActionTokens&, const at::Tensor& kept);

// Denominators over the whole step, all learners and micro-batches: a layout must not change the
// loss.
struct LossDenominators {
  double tokens = 0;                       // active tokens
  double sequences = 0;                    // sequences with an active token
  double prompts = 0;                      // prompts with an active token
  std::vector<double> tokens_of_prompt;    // [P] of this micro-batch's prompts, step-wide counts
  std::vector<double> tokens_of_sequence;  // [S]
};

// The denominators of a step that consists of these tokens alone.
LossDenominators count_tokens(const ActionTokens&);

// [N] what each token weighs in the step's loss, a tensor like `like`: the sum of weighted token
// losses over all micro-batches and learners is the step's loss. `constant` divides
// seq_mean_token_sum_const. Throws Error if the counts do not fit the tokens.
at::Tensor aggregation_weights(const ActionTokens&, const LossDenominators&, Aggregation,
                               double constant, const at::Tensor& like);

// [S] sums and means over each sequence's tokens of `values` [N], 0 for a sequence without;
// differentiable.
at::Tensor sum_by_sequence(const at::Tensor& values, const at::Tensor& sequence,
                           std::int64_t sequences);
at::Tensor mean_by_sequence(const at::Tensor& values, const at::Tensor& sequence,
                            std::int64_t sequences);

}  // namespace rollcall
