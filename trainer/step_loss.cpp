// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_loss.h"

#include <ATen/TensorOperators.h>

#include <algorithm>

#include "comms/communicator.h"
#include "trainer/corrections.h"
#include "trainer/mismatch.h"

namespace rollcall {
namespace {

LossOptions loss_options(const AlgorithmOptions& a) {
  LossOptions options;
  options.kind = loss_kind(a.loss);
  options.aggregation = aggregation_kind(a.aggregation);
  options.constant = a.aggregation_constant;
  options.clip_low = a.clip_low;
  options.clip_high = a.clip_high;
  options.dual_clip = a.dual_clip;
  options.divergence = a.divergence;
  options.ratio_cap = a.ratio_cap;
  options.tau_positive = a.tau_positive;
  options.tau_negative = a.tau_negative;
  if (!a.kl_in_loss()) return options;
  options.kl.importance_weighted = a.kl.form == "k3_weighted";
  options.kl.kind = options.kl.importance_weighted ? KlKind::kK3 : kl_kind(a.kl.form);
  options.kl.coef = a.kl.coefficient;
  return options;
}

double positive_advantages(const ActionTokens& tokens) {
  return (tokens.advantages > 0).sum().item<double>();
}

}  // namespace

StepLoss::StepLoss(const AlgorithmOptions& algorithm, std::span<const PackedBatch> batches,
                   std::span<const at::Tensor> old_logprobs,
                   std::span<const at::Tensor> reference_logprobs, Communicator& communicator)
    : communicator_(communicator),
      options_(loss_options(algorithm)),
      anchor_is_old_(algorithm.anchor == "old"),
      batches_(batches.begin(), batches.end()),
      reference_logprobs_(reference_logprobs.begin(), reference_logprobs.end()) {
  if (anchor_is_old_) old_logprobs_.assign(old_logprobs.begin(), old_logprobs.end());
  if (!algorithm.corrections.empty()) {
    for (std::size_t i = 0; i < batches_.size(); ++i)
      correct(algorithm.corrections, i, old_logprobs[i]);
  }
  denominators_ = step_denominators(batches_, communicator_);
}

void StepLoss::correct(std::span<const Correction> corrections, std::size_t batch,
                       const at::Tensor& old_logprobs) {
  ActionTokens& tokens = batches_[batch].actions;
  const at::Tensor& behavior = tokens.anchor_logprobs;
  const Corrected corrected = apply_corrections(corrections, old_logprobs - behavior,
                                                tokens.sequence, tokens.prompt.numel());
  const double positive = positive_advantages(tokens);
  rejected_ += static_cast<double>(behavior.numel() - corrected.kept.numel());
  weights_.push_back(corrected.weights.to(behavior.options()));
  kept_.push_back(corrected.kept);
  tokens = select_tokens(tokens, corrected.kept);
  rejected_positive_ += positive - positive_advantages(tokens);
  if (anchor_is_old_) old_logprobs_[batch] = old_logprobs.index_select(0, corrected.kept);
  if (!reference_logprobs_.empty())
    reference_logprobs_[batch] = reference_logprobs_[batch].index_select(0, corrected.kept);
}

at::Tensor StepLoss::share(std::size_t batch, const at::Tensor& current_logprobs) {
  at::Tensor current = current_logprobs;
  LossInputs inputs;
  if (!kept_.empty()) {
    current = current.index_select(0, kept_[batch]);
    inputs.weights = weights_[batch];
  }
  ActionTokens tokens = batches_[batch].actions;
  if (!reference_logprobs_.empty()) {
    inputs.reference_logprobs = reference_logprobs_[batch];
    reference_kl_ += measure_mismatch(inputs.reference_logprobs - current.detach()).k3;
  }
  if (anchor_is_old_)
    tokens.anchor_logprobs = old_logprobs_.empty() ? current.detach() : old_logprobs_[batch];
  const LossStats result = policy_loss(tokens, current, denominators_[batch], options_, inputs);
  clipped_high_ += result.clip_high_fraction_sum;
  clipped_low_ += result.clip_low_fraction_sum;
  return result.loss;
}

StepLoss::Stats StepLoss::stats() const {
  double active = 0;
  for (const PackedBatch& batch : batches_)
    active += static_cast<double>(batch.actions.sequence.numel());
  double sums[] = {clipped_high_,      clipped_low_,  rejected_,
                   rejected_positive_, reference_kl_, active};
  communicator_.all_sum_host(sums);
  const double divisor = std::max(1.0, sums[5]);
  Stats stats{sums[0] / divisor, sums[1] / divisor, sums[2], sums[3], {}};
  if (options_.kl.coef > 0) stats.reference_kl_mean = sums[4] / divisor;
  return stats;
}

}  // namespace rollcall
