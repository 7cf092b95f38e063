// SPDX-License-Identifier: Apache-2.0
#include "trainer/critic.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/sum.h>

#include <algorithm>
#include <numeric>

#include "comms/error.h"

namespace rollcall {
namespace {

void require_same(bool same, const char* where) {
  if (!same) throw Error(std::string(where) + ": arrays differ in length");
}

at::Tensor clipped(const at::Tensor& values, const at::Tensor& old_values, double clip) {
  return at::maximum(at::minimum(values, old_values + clip), old_values - clip);
}

double variance_of(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (double value : values) squares += (value - mean) * (value - mean);
  return squares / n;
}

}  // namespace

AdvantagesAndReturns generalized_advantages(std::span<const double> rewards,
                                            std::span<const double> values,
                                            std::span<const std::uint8_t> is_action, double gamma,
                                            double lambda) {
  require_same(rewards.size() == values.size() && values.size() == is_action.size(),
               "generalized_advantages");
  AdvantagesAndReturns result{std::vector<double>(values.size()),
                              std::vector<double>(values.size())};
  double next_value = 0, running = 0;
  for (std::size_t t = values.size(); t-- > 0;) {
    if (is_action[t] == 0) continue;
    running = rewards[t] + gamma * next_value - values[t] + gamma * lambda * running;
    next_value = values[t];
    result.advantages[t] = running;
    result.returns[t] = running + values[t];
  }
  return result;
}

double decoupled_lambda(std::int64_t action_tokens, double alpha) {
  if (action_tokens <= 0) return 0;
  return std::max(0.0, 1 - 1 / (alpha * static_cast<double>(action_tokens)));
}

at::Tensor value_loss(const at::Tensor& values, const at::Tensor& old_values,
                      const at::Tensor& returns, double clip, double tokens) {
  require_same(values.numel() == old_values.numel() && values.numel() == returns.numel(),
               "value_loss");
  const at::Tensor error = values - returns;
  at::Tensor squares = error * error;
  if (clip > 0) {
    const at::Tensor kept = clipped(values, old_values, clip) - returns;
    squares = at::maximum(squares, kept * kept);
  }
  return at::sum(squares) * (tokens > 0 ? 0.5 / tokens : 0);
}

double clipped_values(const at::Tensor& values, const at::Tensor& old_values,
                      const at::Tensor& returns, double clip) {
  if (clip <= 0) return 0;
  const at::Tensor free = values - returns, kept = clipped(values, old_values, clip) - returns;
  return (kept * kept > free * free).sum().item<double>();
}

double explained_variance(std::span<const double> values, std::span<const double> returns) {
  require_same(values.size() == returns.size(), "explained_variance");
  if (values.empty()) return 0;
  std::vector<double> errors(values.size());
  std::transform(returns.begin(), returns.end(), values.begin(), errors.begin(), std::minus<>());
  const double spread = variance_of(returns);
  return spread > 0 ? 1 - variance_of(errors) / spread : 0;
}

}  // namespace rollcall
