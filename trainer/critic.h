// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace rollcall {

// Generalized advantage estimation over one trajectory (1506.02438), all spans of one length.
// Tokens that the policy did not sample are skipped: the next value and the running advantage pass
// through them unchanged, and they get 0. A reward that stands on such a token is lost: put it on
// an action token. Returns are advantage + value.
struct AdvantagesAndReturns {
  std::vector<double> advantages, returns;
};
AdvantagesAndReturns generalized_advantages(std::span<const double> rewards,
                                            std::span<const double> values,
                                            std::span<const std::uint8_t> is_action, double gamma,
                                            double lambda);

// The policy's lambda of decoupled GAE, 1 - 1 / (alpha * action_tokens), at least 0 (VAPO,
// 2504.05118; the critic's is 1). The formula is negative for answers under 1 / alpha tokens.
double decoupled_lambda(std::int64_t action_tokens, double alpha = 0.05);

// Sum over tokens of max((V - R)^2, (clip(V, V_old +- clip) - R)^2) / 2, divided by the step's
// `tokens`; 0 for none. All tensors [N]; differentiable in `values`; clip 0: no clipping.
at::Tensor value_loss(const at::Tensor& values, const at::Tensor& old_values,
                      const at::Tensor& returns, double clip, double tokens);

// Of N tokens, how many the clip holds back: their loss is the clipped one, without gradient.
double clipped_values(const at::Tensor& values, const at::Tensor& old_values,
                      const at::Tensor& returns, double clip);

// 1 - Var(returns - values) / Var(returns): 1 for a perfect critic, 0 for one that knows the mean
// alone, negative for worse. 0 where the returns do not vary.
double explained_variance(std::span<const double> values, std::span<const double> returns);

}  // namespace rollcall
