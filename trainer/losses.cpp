// SPDX-License-Identifier: Apache-2.0
#include "trainer/losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <array>

#include "comms/error.h"
#include "trainer/mismatch.h"
#include "trainer/names.h"

namespace rollcall {
namespace {

// In the order of LossKind.
constexpr std::array<std::string_view, 6> kLossNames{"ppo_clip", "cispo",   "reinforce",
                                                     "gspo",     "dppo_tv", "sapo"};

void require(bool holds, const char* what) {
  if (!holds) throw Error(std::string("policy loss: ") + what, "this is a bug in the packing");
}

void check_shapes(const ActionTokens& tokens, const at::Tensor& current, const LossOptions& options,
                  const LossInputs& inputs) {
  const std::int64_t n = current.numel();
  require(current.dim() == 1, "current_logprobs must have one dimension");
  require(tokens.anchor_logprobs.numel() == n, "one anchor log-probability per token");
  require(tokens.advantages.numel() == n, "one advantage per token");
  require(tokens.sequence.numel() == n, "one sequence index per token");
  require(!inputs.weights.defined() || inputs.weights.numel() == n, "one weight per token");
  require(options.kl.coef == 0 ||
              (inputs.reference_logprobs.defined() && inputs.reference_logprobs.numel() == n),
          "one reference log-probability per token");
}

// What a loss is made of. All [N].
struct Terms {
  const at::Tensor& current;
  const at::Tensor& anchor;
  const at::Tensor& advantages;
  at::Tensor ratio;     // of the sequence for gspo
  at::Tensor too_high;  // bool: beyond the upper bound and pushed outwards
  at::Tensor too_low;
};

// exp(mean over the sequence of log r), the ratio of GSPO (2507.18071, equation 7).
at::Tensor gspo_ratio(const ActionTokens& tokens, const at::Tensor& log_ratio) {
  const at::Tensor means = mean_by_sequence(log_ratio, tokens.sequence, tokens.prompt.numel());
  return at::exp(clamp_log_ratio(means)).index_select(0, tokens.sequence);
}

// Sets too_high and too_low.
void find_clipped(Terms& t, const LossOptions& o) {
  const at::Tensor r = t.ratio.detach();
  t.too_high = r > 1 + o.clip_high;
  t.too_low = r < 1 - o.clip_low;
  if (o.kind == LossKind::kReinforce || o.kind == LossKind::kSapo) {
    t.too_high = t.too_low = at::zeros_like(t.too_high);
  } else if (o.kind == LossKind::kDppoTv) {
    const at::Tensor moved = at::exp(t.current.detach()) - at::exp(t.anchor);
    t.too_high = moved > o.divergence;
    t.too_low = moved < -o.divergence;
  }
  if (o.kind != LossKind::kCispo) {
    t.too_high = at::logical_and(t.too_high, t.advantages > 0);
    t.too_low = at::logical_and(t.too_low, t.advantages < 0);
  }
}

// max(-rA, -clip(r)A), and for A < 0 at most -dual_clip A (2402.03300; dual clip 1912.09729).
at::Tensor clipped_objective(const Terms& t, const LossOptions& o) {
  const at::Tensor kept = at::clamp(t.ratio, 1 - o.clip_low, 1 + o.clip_high);
  const at::Tensor loss = at::maximum(-t.ratio * t.advantages, -kept * t.advantages);
  if (o.kind != LossKind::kPpoClip || o.dual_clip <= 0) return loss;
  return at::where(t.advantages < 0, at::minimum(loss, t.advantages * -o.dual_clip), loss);
}

// 2602.04879: a truncated importance weight, and no gradient for a token whose probability has
// already moved by more than `divergence` the way its advantage pushes.
at::Tensor divergence_objective(const Terms& t, const LossOptions& o) {
  const at::Tensor weight = at::clamp(t.ratio.detach(), 0, o.ratio_cap);
  const at::Tensor loss = -weight * t.advantages * t.current;
  return at::where(at::logical_or(t.too_high, t.too_low), at::zeros_like(loss), loss);
}

// 2511.20347: a sigmoid gate in place of the clip.
at::Tensor soft_objective(const Terms& t, const LossOptions& o) {
  const at::Tensor tau = at::where(t.advantages > 0, at::full_like(t.ratio, o.tau_positive),
                                   at::full_like(t.ratio, o.tau_negative));
  return -(at::sigmoid(tau * (t.ratio - 1)) * 4 / tau) * t.advantages;
}

at::Tensor token_losses(const Terms& t, const LossOptions& o) {
  switch (o.kind) {
    case LossKind::kPpoClip:
    case LossKind::kGspo:
      return clipped_objective(t, o);
    case LossKind::kCispo:  // 2506.13585, equation 4
      return -at::clamp(t.ratio, 1 - o.clip_low, 1 + o.clip_high).detach() * t.advantages *
             t.current;
    case LossKind::kDppoTv:
      return divergence_objective(t, o);
    case LossKind::kSapo:
      return soft_objective(t, o);
    case LossKind::kReinforce:
      break;
  }
  return -t.advantages * t.current;
}

at::Tensor kl_losses(const at::Tensor& current, const at::Tensor& anchor,
                     const at::Tensor& reference, const KlOptions& options) {
  const at::Tensor terms = kl_terms(options.kind, current, reference) * options.coef;
  return options.importance_weighted ? terms * at::exp(clamp_log_ratio(current - anchor)) : terms;
}

}  // namespace

std::span<const std::string_view> loss_names() { return kLossNames; }

LossKind loss_kind(const std::string& name) {
  return static_cast<LossKind>(index_of_name(kLossNames, name, "loss"));
}

LossStats policy_loss(const ActionTokens& tokens, const at::Tensor& current,
                      const LossDenominators& denominators, const LossOptions& options,
                      const LossInputs& inputs) {
  check_shapes(tokens, current, options, inputs);
  const bool per_sequence = options.kind == LossKind::kGspo;
  const at::Tensor log_ratio = current - tokens.anchor_logprobs;
  Terms terms{current,
              tokens.anchor_logprobs,
              tokens.advantages,
              per_sequence ? gspo_ratio(tokens, log_ratio) : at::exp(clamp_log_ratio(log_ratio)),
              {},
              {}};
  find_clipped(terms, options);
  at::Tensor losses = token_losses(terms, options);
  if (inputs.weights.defined()) losses = losses * inputs.weights;
  if (options.kl.coef != 0) {
    losses =
        losses + kl_losses(current, tokens.anchor_logprobs, inputs.reference_logprobs, options.kl);
  }
  const at::Tensor shares = aggregation_weights(
      tokens, denominators, per_sequence ? Aggregation::kSeqMeanTokenMean : options.aggregation,
      options.constant, current);
  const at::Tensor clipped =
      at::stack({at::sum(terms.too_high), at::sum(terms.too_low)}).to(at::kCPU, at::kDouble);
  const auto* counts = clipped.const_data_ptr<double>();
  return {.loss = at::sum(losses * shares),
          .clip_high_fraction_sum = counts[0],
          .clip_low_fraction_sum = counts[1]};
}

}  // namespace rollcall
