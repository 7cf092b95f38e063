// SPDX-License-Identifier: Apache-2.0
#include "trainer/corrections.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/ones_like.h>

#include <array>
#include <vector>

#include "trainer/aggregation.h"
#include "trainer/mismatch.h"
#include "trainer/names.h"

namespace rollcall {
namespace {

constexpr std::array<CorrectionRule, 7> kRules{{
    {"token_tis", "", "cap", 0, 2, true},
    {"seq_tis", "", "cap", 0, 2, true},
    {"seq_mask", "", "cap", 0, 3},
    {"geo_mask", "low", "high", 0.99, 1.01},
    {"k3_mask", "", "max", 0, 0.01},
    {"icepop", "low", "high", 0.5, 5},
    {"veto", "low", "high", 1e-4, 100},
}};

// The tokens of a step and their ratios, once for all corrections. Double precision.
struct Ratios {
  const at::Tensor& sequence;
  std::int64_t sequences;
  at::Tensor log_rho, rho;     // [N]
  SequenceRatios of_sequence;  // [S]

  at::Tensor at_tokens(const at::Tensor& per_sequence) const {
    return per_sequence.index_select(0, sequence);
  }
};

at::Tensor within(const at::Tensor& values, double low, double high) {
  return at::logical_and(values >= low, values <= high);
}

at::Tensor weight(const Correction& c, const Ratios& r) {  // [N]
  const at::Tensor ratio =
      c.kind == CorrectionKind::kTokenTis ? r.rho : r.at_tokens(r.of_sequence.product);
  return at::clamp(ratio, 0, c.high);
}

// [N] whether a token stays.
at::Tensor keeps(const Correction& c, const Ratios& r) {
  switch (c.kind) {
    case CorrectionKind::kSeqMask:
      return r.at_tokens(within(r.of_sequence.product, 1 / c.high, c.high));
    case CorrectionKind::kGeoMask:
      return r.at_tokens(within(r.of_sequence.geometric_mean, c.low, c.high));
    case CorrectionKind::kK3Mask: {
      const at::Tensor k3 = mean_by_sequence(r.rho - 1 - r.log_rho, r.sequence, r.sequences);
      return r.at_tokens(k3 <= c.high);
    }
    case CorrectionKind::kVeto: {
      const at::Tensor outside = within(r.rho, c.low, c.high).logical_not().to(at::kDouble);
      return r.at_tokens(sum_by_sequence(outside, r.sequence, r.sequences) == 0);
    }
    case CorrectionKind::kIcepop:
    case CorrectionKind::kTokenTis:
    case CorrectionKind::kSeqTis:
      break;
  }
  return within(r.rho, c.low, c.high);
}

}  // namespace

std::span<const CorrectionRule> correction_rules() { return kRules; }

const CorrectionRule& rule_of(CorrectionKind kind) {
  return kRules[static_cast<std::size_t>(kind)];
}

Correction correction_of(const std::string& name) {
  std::vector<std::string_view> names;
  for (const CorrectionRule& rule : kRules) names.push_back(rule.name);
  const std::size_t at = index_of_name(names, name, "correction");
  return {static_cast<CorrectionKind>(at), kRules[at].low, kRules[at].high};
}

Corrected apply_corrections(std::span<const Correction> corrections, const at::Tensor& log_ratio,
                            const at::Tensor& sequence, std::int64_t sequences) {
  const at::NoGradGuard no_grad;
  const at::Tensor log_rho = clamp_log_ratio(log_ratio.to(at::kDouble));
  const Ratios ratios{sequence, sequences, log_rho, at::exp(log_rho),
                      sequence_ratios(log_ratio, sequence, sequences)};
  at::Tensor weights = at::ones_like(log_rho);
  at::Tensor kept = at::ones_like(log_rho).to(at::kBool);
  for (const Correction& correction : corrections) {
    if (rule_of(correction.kind).weighs) {
      weights = weights * weight(correction, ratios);
    } else {
      kept = at::logical_and(kept, keeps(correction, ratios));
    }
  }
  const at::Tensor places = at::nonzero(kept).flatten();
  return {places, weights.index_select(0, places)};
}

}  // namespace rollcall
