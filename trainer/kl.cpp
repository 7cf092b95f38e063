// SPDX-License-Identifier: Apache-2.0
#include "trainer/kl.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>

#include <algorithm>
#include <array>

#include "comms/error.h"
#include "trainer/mismatch.h"
#include "trainer/names.h"

namespace rollcall {
namespace {

constexpr std::array<std::string_view, 3> kKlNames{"k1", "k2", "k3"};  // in the order of KlKind

}  // namespace

std::span<const std::string_view> kl_names() { return kKlNames; }

KlKind kl_kind(const std::string& name) {
  return static_cast<KlKind>(index_of_name(kKlNames, name, "KL estimator"));
}

at::Tensor kl_terms(KlKind kind, const at::Tensor& current, const at::Tensor& reference) {
  const at::Tensor d = clamp_log_ratio(current - reference);
  switch (kind) {
    case KlKind::kK1:
      return d;
    case KlKind::kK2:
      return d * d * 0.5;
    case KlKind::kK3:
      break;
  }
  return at::exp(-d) - 1 + d;
}

double kl_penalized_reward(double reward, std::span<const float> behavior_logprobs,
                           std::span<const float> reference_logprobs,
                           std::span<const std::uint8_t> is_action, double coef) {
  if (behavior_logprobs.size() != is_action.size() ||
      reference_logprobs.size() != is_action.size()) {
    throw Error("kl_penalized_reward: log-probabilities and mask differ in length");
  }
  double k1 = 0;
  for (std::size_t t = 0; t < is_action.size(); ++t) {
    if (is_action[t] == 0) continue;
    k1 += std::clamp(static_cast<double>(behavior_logprobs[t]) - reference_logprobs[t],
                     -kLogRatioLimit, kLogRatioLimit);
  }
  return reward - coef * k1;
}

}  // namespace rollcall
