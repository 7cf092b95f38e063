// SPDX-License-Identifier: Apache-2.0
#include "trainer/corrections.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "comms/error.h"

namespace rollcall {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pointwise;

struct Left {
  std::vector<std::int64_t> kept;
  std::vector<double> weights;
};

Left left(const std::vector<Correction>& corrections, const at::Tensor& log_ratio,
          const std::vector<std::int64_t>& sequence, std::int64_t sequences) {
  const Corrected c =
      apply_corrections(corrections, log_ratio, at::tensor(sequence, at::kLong), sequences);
  const auto* kept = c.kept.const_data_ptr<std::int64_t>();
  const auto* weights = c.weights.const_data_ptr<double>();
  return {{kept, kept + c.kept.numel()}, {weights, weights + c.weights.numel()}};
}

// Ratios old / mu of three sequences: {2, 0.5}, {1}, {4, 1, 1}.
Left of_example(const std::vector<Correction>& corrections) {
  const at::Tensor ratios = at::tensor({2.0, 0.5, 1.0, 4.0, 1.0, 1.0}, at::kDouble);
  return left(corrections, ratios.log(), {0, 0, 1, 2, 2, 2}, 3);
}

TEST(Corrections, WeighTokensByTheirOwnRatioOrTheirSequences) {
  const Left token = of_example({{CorrectionKind::kTokenTis, 0, 1.5}});
  EXPECT_THAT(token.weights, Pointwise(DoubleNear(1e-12), {1.5, 0.5, 1.0, 1.5, 1.0, 1.0}));
  const Left sequence = of_example({{CorrectionKind::kSeqTis, 0, 3}});
  EXPECT_THAT(sequence.weights, Pointwise(DoubleNear(1e-12), {1.0, 1.0, 1.0, 3.0, 3.0, 3.0}));
  EXPECT_EQ(sequence.kept.size(), 6u);
}

TEST(Corrections, RejectSequencesByProductGeometricMeanAndK3) {
  EXPECT_THAT(of_example({{CorrectionKind::kSeqMask, 0, 3}}).kept, ElementsAre(0, 1, 2));
  // Geometric means: 1, 1, 4^(1/3) = 1.587.
  EXPECT_THAT(of_example({{CorrectionKind::kGeoMask, 0.9, 1.5}}).kept, ElementsAre(0, 1, 2));
  EXPECT_EQ(of_example({{CorrectionKind::kGeoMask, 0.9, 1.6}}).kept.size(), 6u);
  // Means of rho - 1 - log rho: 0.25, 0, (3 - log 4) / 3 = 0.538.
  EXPECT_THAT(of_example({{CorrectionKind::kK3Mask, 0, 0.3}}).kept, ElementsAre(0, 1, 2));
  EXPECT_THAT(of_example({{CorrectionKind::kK3Mask, 0, 0.2}}).kept, ElementsAre(2));
}

TEST(Corrections, RejectTokensOrWholeSequencesByOneToken) {
  EXPECT_THAT(of_example({{CorrectionKind::kIcepop, 0.6, 3}}).kept, ElementsAre(0, 2, 4, 5));
  EXPECT_THAT(of_example({{CorrectionKind::kVeto, 0.4, 3}}).kept, ElementsAre(0, 1, 2));
}

TEST(Corrections, MultiplyWeightsAndJoinRejectionsInAnyOrder) {
  std::vector<Correction> list{{CorrectionKind::kTokenTis, 0, 1.5},
                               {CorrectionKind::kIcepop, 0.6, 3},
                               {CorrectionKind::kGeoMask, 0.9, 1.5},
                               {CorrectionKind::kSeqTis, 0, 3}};
  const Left forwards = of_example(list);
  EXPECT_THAT(forwards.kept, ElementsAre(0, 2));
  EXPECT_THAT(forwards.weights, Pointwise(DoubleNear(1e-12), {1.5, 1.0}));
  std::reverse(list.begin(), list.end());
  EXPECT_EQ(of_example(list).kept, forwards.kept);
  EXPECT_EQ(of_example(list).weights, forwards.weights);
}

TEST(Corrections, ChangeNothingWherePoliciesAgree) {
  for (const CorrectionRule& rule : correction_rules()) {
    const Left result = left({correction_of(std::string(rule.name))},
                             at::zeros_like(at::tensor({0.f, 0.f, 0.f})), {0, 0, 1}, 3);
    EXPECT_THAT(result.kept, ElementsAre(0, 1, 2)) << rule.name;
    EXPECT_THAT(result.weights, ElementsAre(1, 1, 1)) << rule.name;
  }
}

TEST(Corrections, ActOnASequenceWhateverStandsBesideIt) {
  const std::vector<double> ratios{0.05, -0.2, 1.2, 0.004, 3.0, -6.0, 0.5};
  const std::vector<std::int64_t> sequence{0, 0, 1, 2, 2, 2, 3};
  for (const CorrectionRule& rule : correction_rules()) {
    const Correction correction = correction_of(std::string(rule.name));
    const Left together = left({correction}, at::tensor(ratios, at::kDouble), sequence, 4);
    Left apart;
    for (std::int64_t s = 0; s < 4; ++s) {
      const auto [begin, end] = std::equal_range(sequence.begin(), sequence.end(), s);
      const auto first = begin - sequence.begin(), last = end - sequence.begin();
      const std::vector<double> own(ratios.begin() + first, ratios.begin() + last);
      const Left one = left({correction}, at::tensor(own, at::kDouble),
                            std::vector<std::int64_t>(own.size(), 0), 1);
      for (const auto place : one.kept) apart.kept.push_back(first + place);
      apart.weights.insert(apart.weights.end(), one.weights.begin(), one.weights.end());
    }
    EXPECT_EQ(apart.kept, together.kept) << rule.name;
    EXPECT_THAT(apart.weights, Pointwise(DoubleNear(1e-12), together.weights)) << rule.name;
  }
}

TEST(Corrections, TakeNoTokensAndHugeRatios) {
  for (const CorrectionRule& rule : correction_rules()) {
    const Correction correction = correction_of(std::string(rule.name));
    EXPECT_TRUE(
        left({correction}, at::tensor(std::vector<double>{}, at::kDouble), {}, 0).kept.empty());
    const Left far = left({correction}, at::tensor({900.0}, at::kDouble), {0}, 1);
    for (double weight : far.weights) EXPECT_TRUE(std::isfinite(weight));
    EXPECT_EQ(far.kept.size(), rule.weighs ? 1u : 0u) << rule.name;
  }
}

TEST(Corrections, ListTheirNamesWhenOneIsUnknown) {
  try {
    correction_of("tis");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what_to_do(), testing::HasSubstr("token_tis, seq_tis"));
  }
}

}  // namespace
}  // namespace rollcall
