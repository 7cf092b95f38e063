// SPDX-License-Identifier: Apache-2.0
#include "trainer/mismatch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/stack.h>

#include <algorithm>

#include "trainer/aggregation.h"

namespace rollcall {
namespace {

constexpr double kWeightCap = 2;

}  // namespace

void Mismatch::add(const Mismatch& other) {
  tokens += other.tokens;
  gap += other.gap;
  ratio += other.ratio;
  k3 += other.k3;
  chi2 += other.chi2;
  capped += other.capped;
  capped_squares += other.capped_squares;
  gap_max = std::max(gap_max, other.gap_max);
}

double Mismatch::ess_fraction() const {
  return capped_squares > 0 ? capped * capped / (tokens * capped_squares) : 1;
}

at::Tensor clamp_log_ratio(const at::Tensor& log_ratio) {
  return at::clamp(log_ratio, -kLogRatioLimit, kLogRatioLimit);
}

Mismatch measure_mismatch(const at::Tensor& log_ratio) {
  if (log_ratio.numel() == 0) return {};
  const at::Tensor log_rho = clamp_log_ratio(log_ratio.detach().to(at::kDouble));
  const at::Tensor rho = at::exp(log_rho), gap = log_rho.abs();
  const at::Tensor weight = at::clamp(rho, 0, kWeightCap);
  const at::Tensor sums =
      at::stack({gap.sum(), rho.sum(), (rho - 1 - log_rho).sum(), (rho * rho - 1).sum(),
                 weight.sum(), (weight * weight).sum(), gap.max()})
          .to(at::kCPU);
  const auto* s = sums.const_data_ptr<double>();
  Mismatch result;
  result.tokens = static_cast<double>(log_ratio.numel());
  result.gap = s[0], result.ratio = s[1], result.k3 = s[2], result.chi2 = s[3];
  result.capped = s[4], result.capped_squares = s[5], result.gap_max = s[6];
  return result;
}

SequenceRatios sequence_ratios(const at::Tensor& log_ratio, const at::Tensor& sequence,
                               std::int64_t sequences) {
  const at::Tensor log_rho = clamp_log_ratio(log_ratio.detach().to(at::kDouble));
  return {at::exp(clamp_log_ratio(sum_by_sequence(log_rho, sequence, sequences))),
          at::exp(mean_by_sequence(log_rho, sequence, sequences))};
}

}  // namespace rollcall
