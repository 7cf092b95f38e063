// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string>
#include <string_view>

namespace rollcall {

// Estimators of KL(current | reference) from sampled tokens (joschu.net/blog/kl-approx), with
// d = log(current / reference) kept within +-20: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d. The
// values of k1 and k3 are unbiased; as a loss only k2 has the gradient of the KL (2512.21852).
enum class KlKind { kK1, kK2, kK3 };
KlKind kl_kind(const std::string& name);  // throws an input Error listing the names
std::span<const std::string_view> kl_names();

struct KlOptions {
  KlKind kind = KlKind::kK2;
  double coef = 0;  // 0: no term
  // Multiplied by the ratio current / anchor, with its gradient: unbiased where the anchor, not the
  // current policy, sampled (DeepSeek-V3.2, 2512.02556).
  bool importance_weighted = false;
};

// [N] the estimate at each token, differentiable in `current`.
at::Tensor kl_terms(KlKind, const at::Tensor& current, const at::Tensor& reference);

}  // namespace rollcall
