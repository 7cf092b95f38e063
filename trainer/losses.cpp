// SPDX-License-Identifier: Apache-2.0
#include "trainer/losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <utility>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr double kLogRatioLimit = 20;

// In the order of LossKind and Aggregation.
constexpr std::array<std::string_view, 4> kLossNames{"ppo_clip", "cispo", "reinforce", "gspo"};
constexpr std::array<std::string_view, 4> kAggregationNames{
    "token_mean", "seq_mean_token_mean", "seq_mean_token_sum_const", "prompt_mean"};

std::size_t index_of(std::span<const std::string_view> names, const std::string& name,
                     const char* what) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    std::string known;
    for (std::string_view one : names) known.append(known.empty() ? "" : ", ").append(one);
    throw input_error(std::string("unknown ") + what + " '" + name + "'", "use one of " + known);
  }
  return static_cast<std::size_t>(found - names.begin());
}

void require(bool holds, const char* what) {
  if (!holds) throw Error(std::string("policy_loss: ") + what, "this is a bug in the packing");
}

void check_shapes(const ActionTokens& tokens, const at::Tensor& current,
                  const LossDenominators& denominators) {
  const std::int64_t n = current.numel();
  require(current.dim() == 1, "current_logprobs must have one dimension");
  require(tokens.anchor_logprobs.numel() == n, "one anchor log-probability per token");
  require(tokens.advantages.numel() == n, "one advantage per token");
  require(tokens.sequence.numel() == n, "one sequence index per token");
  require(
      static_cast<std::int64_t>(denominators.tokens_of_sequence.size()) == tokens.prompt.numel(),
      "one token count per sequence");
}

double inverse(double count) { return count > 0 ? 1 / count : 0; }

// [S] what one token of a sequence weighs in the step's loss.
std::vector<double> sequence_weights(const ActionTokens& tokens, const LossDenominators& d,
                                     Aggregation aggregation, double constant) {
  const auto sequences = static_cast<std::size_t>(tokens.prompt.numel());
  std::vector<double> weights(sequences);
  switch (aggregation) {
    case Aggregation::kTokenMean:
      std::fill(weights.begin(), weights.end(), inverse(d.tokens));
      break;
    case Aggregation::kSeqMeanTokenMean:
      for (std::size_t s = 0; s < sequences; ++s) {
        weights[s] = inverse(d.tokens_of_sequence[s]) * inverse(d.sequences);
      }
      break;
    case Aggregation::kSeqMeanTokenSumConst:
      std::fill(weights.begin(), weights.end(), inverse(d.sequences * constant));
      break;
    case Aggregation::kPromptMean: {
      const at::Tensor host = tokens.prompt.to(at::kCPU, at::kLong).contiguous();
      const auto* prompt = host.const_data_ptr<std::int64_t>();
      for (std::size_t s = 0; s < sequences; ++s) {
        const auto p = static_cast<std::size_t>(prompt[s]);
        require(p < d.tokens_of_prompt.size(), "one token count per prompt");
        weights[s] = inverse(d.tokens_of_prompt[p]) * inverse(d.prompts);
      }
      break;
    }
  }
  return weights;
}

// [N] per-sequence host values, at each token of the sequence.
at::Tensor spread(const std::vector<double>& per_sequence, const ActionTokens& tokens,
                  const at::Tensor& like) {
  const at::Tensor values = at::tensor(per_sequence, at::kDouble).to(like.options());
  return values.index_select(0, tokens.sequence);
}

// [N] exp(mean over the sequence of log r), the ratio of GSPO (2507.18071, equation 7).
at::Tensor sequence_ratio(const ActionTokens& tokens, const at::Tensor& log_ratio,
                          const LossDenominators& d) {
  const at::Tensor shares =
      log_ratio * spread(sequence_weights(tokens,
                                          {.tokens = 0,
                                           .sequences = 1,
                                           .prompts = 0,
                                           .tokens_of_prompt = {},
                                           .tokens_of_sequence = d.tokens_of_sequence},
                                          Aggregation::kSeqMeanTokenMean, 1),
                         tokens, log_ratio);
  const at::Tensor means =
      at::zeros({tokens.prompt.numel()}, log_ratio.options()).index_add(0, tokens.sequence, shares);
  return at::exp(at::clamp(means, -kLogRatioLimit, kLogRatioLimit))
      .index_select(0, tokens.sequence);
}

// max(-rA, -clip(r)A), and for A < 0 at most -dual_clip A (2402.03300; dual clip 1912.09729).
at::Tensor clipped_objective(const at::Tensor& r, const at::Tensor& advantages,
                             const LossOptions& o) {
  const at::Tensor kept = at::clamp(r, 1 - o.clip_low, 1 + o.clip_high);
  const at::Tensor loss = at::maximum(-r * advantages, -kept * advantages);
  if (o.kind != LossKind::kPpoClip || o.dual_clip <= 0) return loss;
  return at::where(advantages < 0, at::minimum(loss, advantages * -o.dual_clip), loss);
}

at::Tensor token_losses(const ActionTokens& tokens, const at::Tensor& current, const at::Tensor& r,
                        const LossOptions& o) {
  switch (o.kind) {
    case LossKind::kPpoClip:
    case LossKind::kGspo:
      return clipped_objective(r, tokens.advantages, o);
    case LossKind::kCispo:  // 2506.13585, equation 4
      return -at::clamp(r, 1 - o.clip_low, 1 + o.clip_high).detach() * tokens.advantages * current;
    case LossKind::kReinforce:
      break;
  }
  return -tokens.advantages * current;
}

// {above, below}: tokens held back by the clip.
std::pair<double, double> clipped_tokens(const at::Tensor& ratio, const at::Tensor& advantages,
                                         const LossOptions& o) {
  if (o.kind == LossKind::kReinforce || ratio.numel() == 0) return {0, 0};
  const at::Tensor r = ratio.detach();
  at::Tensor above = r > 1 + o.clip_high;
  at::Tensor below = r < 1 - o.clip_low;
  if (o.kind != LossKind::kCispo) {
    above = at::logical_and(above, advantages > 0);
    below = at::logical_and(below, advantages < 0);
  }
  const at::Tensor counts = at::stack({at::sum(above), at::sum(below)}).to(at::kCPU, at::kDouble);
  const auto* values = counts.const_data_ptr<double>();
  return {values[0], values[1]};
}

}  // namespace

std::span<const std::string_view> loss_names() { return kLossNames; }
std::span<const std::string_view> aggregation_names() { return kAggregationNames; }

LossKind loss_kind(const std::string& name) {
  return static_cast<LossKind>(index_of(kLossNames, name, "loss"));
}

Aggregation aggregation_kind(const std::string& name) {
  return static_cast<Aggregation>(index_of(kAggregationNames, name, "aggregation"));
}

LossStats policy_loss(const ActionTokens& tokens, const at::Tensor& current_logprobs,
                      const LossDenominators& denominators, const LossOptions& options) {
  check_shapes(tokens, current_logprobs, denominators);
  const bool per_sequence = options.kind == LossKind::kGspo;
  const at::Tensor log_ratio = current_logprobs - tokens.anchor_logprobs;
  const at::Tensor ratio = per_sequence
                               ? sequence_ratio(tokens, log_ratio, denominators)
                               : at::exp(at::clamp(log_ratio, -kLogRatioLimit, kLogRatioLimit));
  const at::Tensor weights =
      spread(sequence_weights(tokens, denominators,
                              per_sequence ? Aggregation::kSeqMeanTokenMean : options.aggregation,
                              options.constant),
             tokens, current_logprobs);
  const auto [above, below] = clipped_tokens(ratio, tokens.advantages, options);
  return {.loss = at::sum(token_losses(tokens, current_logprobs, ratio, options) * weights),
          .clip_high_fraction_sum = above,
          .clip_low_fraction_sum = below};
}

}  // namespace rollcall
