// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "trainer/counting.h"

namespace rollcall {

// How success rates are spread over tasks: shares of tasks on a grid of rates from 0 to 1.
struct SuccessRates {
  std::vector<double> rates, shares;  // the shares add up to 1

  double expect(const std::function<double(double rate)>&) const;
};

// The spread that makes the counts likeliest (maximum likelihood of a mixture, Kiefer and Wolfowitz
// 1956, by EM), with one task of any rate added to them. A task with no success in n tries is thus
// neither taken for hopeless nor for 1 in n: it is what the other tasks make likely.
SuccessRates fit_success_rates(std::span<const GroupCount> tasks);

}  // namespace rollcall
