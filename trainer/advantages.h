// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

enum class AdvantageKind { kRloo, kRlooBatchStd, kDrGrpo, kGrpoStd, kBatchStd, kMaxRl };
AdvantageKind advantage_kind(const std::string& name);  // throws an input Error listing the names
std::span<const std::string_view> advantage_names();

// Advantages of a batch of groups (ragged; each inner vector is one group in launch order), by the
// formulas of algorithms.md 1.2. Standard deviations use n-1; `eps` is added to a divisor. A group
// of one gives 0; zero deviation gives 0. Pure.
std::vector<std::vector<double>> group_advantages(std::span<const std::vector<double>> rewards,
                                                  AdvantageKind kind, double eps = 1e-6);

// True if the group's rewards differ, i.e. it carries a gradient.
bool has_signal(std::span<const double> rewards);

}  // namespace rollcall
