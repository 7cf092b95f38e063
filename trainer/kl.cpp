// SPDX-License-Identifier: Apache-2.0
#include "trainer/kl.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/exp.h>

#include <array>

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

}  // namespace rollcall
