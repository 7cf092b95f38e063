// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

enum class AdvantageKind {
  kRloo,
  kRlooBatchStd,
  kDrGrpo,
  kGrpoStd,
  kBatchStd,
  kMaxRl,
  kPassK,
  kGae
};
AdvantageKind advantage_kind(const std::string& name);  // throws an input Error listing the names
std::span<const std::string_view> advantage_names();

struct AdvantageOptions {
  AdvantageKind kind = AdvantageKind::kRloo;
  std::int64_t k = 4;  // passk: rollouts of which the best counts
  double eps = 1e-6;   // added to a standard deviation
};

// Whether rollouts are compared by whether they passed, and not by their rewards.
constexpr bool compares_passes(AdvantageKind kind) { return kind == AdvantageKind::kPassK; }

// Advantages of a batch of groups (ragged; each inner vector is one group in launch order), by the
// formulas of docs/algorithms.md. Standard deviations use n-1. A group of one gives 0; zero
// deviation gives 0. passk takes a reward above 0.5 for a success, and a group of at most k
// rollouts gives 0: it says nothing of pass@k. Throws an input Error for gae, which needs a
// critic's values (step_values.h), and for maxrl with a reward below 0. Pure.
std::vector<std::vector<double>> group_advantages(std::span<const std::vector<double>> rewards,
                                                  const AdvantageOptions&);

// True if the group's rewards differ, i.e. it carries a gradient.
bool has_signal(std::span<const double> rewards);

}  // namespace rollcall
