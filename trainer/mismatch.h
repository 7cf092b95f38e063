// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace rollcall {

// How far two policies are apart on the same sampled tokens, from log rho = log(policy / sampler)
// of each, kept within +-20 nats. Sums: micro-batches and learners add up.
struct Mismatch {
  double tokens = 0;
  double gap = 0;     // |log rho|
  double ratio = 0;   // rho
  double k3 = 0;      // rho - 1 - log rho, whose mean estimates KL(sampler | policy)
  double chi2 = 0;    // rho^2 - 1
  double capped = 0;  // w = min(rho, 2), the usual truncated importance weight
  double capped_squares = 0;
  double gap_max = 0;  // of |log rho|

  void add(const Mismatch&);

  double gap_mean() const { return gap / divisor(); }
  double ratio_mean() const { return ratio / divisor(); }
  double k3_mean() const { return k3 / divisor(); }
  double chi2_mean() const { return chi2 / divisor(); }
  // (sum w)^2 / (n sum w^2): the share of the tokens that weighted tokens are worth; 1 for none.
  double ess_fraction() const;

 private:
  double divisor() const { return tokens > 0 ? tokens : 1; }
};

// `log_ratio` [N], any floating type and device; computed in double precision without gradient.
Mismatch measure_mismatch(const at::Tensor& log_ratio);

constexpr double kLogRatioLimit = 20;  // exp() stays finite; no gradient outside

// log_ratio kept within +-kLogRatioLimit; differentiable.
at::Tensor clamp_log_ratio(const at::Tensor& log_ratio);

// [S] exp of the sum and of the mean of the clamped log ratios over each sequence, in double
// precision, without gradient; 1 for a sequence without tokens.
struct SequenceRatios {
  at::Tensor product, geometric_mean;
};
SequenceRatios sequence_ratios(const at::Tensor& log_ratio, const at::Tensor& sequence,
                               std::int64_t sequences);

}  // namespace rollcall
