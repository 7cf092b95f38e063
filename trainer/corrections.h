// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "trainer/train_options.h"

namespace rollcall {

// What is known of a kind, in the order of CorrectionKind. A correction either weighs tokens or
// rejects them; formulas: docs/algorithms.md.
struct CorrectionRule {
  std::string_view name;
  std::string_view low_key;   // name of the lower bound, empty if the kind has none
  std::string_view high_key;  // of the upper one: "high", "cap" or "max"
  double low = 0, high = 0;   // usual bounds
  bool weighs = false;
};
std::span<const CorrectionRule> correction_rules();
const CorrectionRule& rule_of(CorrectionKind);
// With its usual bounds; throws an input Error listing the names.
Correction correction_of(const std::string& name);

// What corrections leave of N tokens.
struct Corrected {
  at::Tensor kept;     // [K] int64, ascending: the tokens that no correction rejects
  at::Tensor weights;  // [K] float64: the product of their weights
};

// Each correction is computed on all tokens; weights multiply, rejections join. `log_ratio` [N] is
// log(old / mu); no gradient passes. Pure.
Corrected apply_corrections(std::span<const Correction>, const at::Tensor& log_ratio,
                            const at::Tensor& sequence, std::int64_t sequences);

}  // namespace rollcall
