// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

// A sweep becomes one Slurm array: one run for each combination of values.
struct SweepPoint {
  int index = 0;
  std::vector<std::string> overrides;  // K=V, one of each sweep
};

constexpr std::size_t kMostSweepPoints = 1000;  // Slurm's MaxArraySize is 1001 unless it is raised

// All combinations of texts like "algorithm.learning_rate=1e-4,1e-3", the last one's values
// changing fastest. No text, no points. Throws an input Error for anything else.
std::vector<SweepPoint> sweep_points(std::span<const std::string> sweeps);

// Throws an input Error unless `text` may stand in a script and in an #SBATCH line, which have
// different rules of quoting (`#` begins a comment there, even inside a word): visible ASCII
// without quotes, backslash, dollar and hash. `what` names it.
void require_plain(std::string_view text, const std::string& what);

}  // namespace rollcall
