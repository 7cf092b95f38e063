// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rollcall {

// A mean over tasks and its 95 % interval; all NaN where there is no task.
struct Estimate {
  double mean = 0, low_95 = 0, high_95 = 0;
};

constexpr int kBootstrapRounds = 2000;

// Which of `count` tasks the round-th resample holds: as many, with replacement. The same seed
// gives the same resamples, so that intervals of several numbers of the same tasks belong together.
std::vector<std::size_t> resampled(std::size_t count, std::uint64_t seed, std::uint64_t round);

// The percentile interval (Efron) of a number that the resamples gave `replicates` of.
Estimate percentile_interval(double value, std::vector<double> replicates);

// Mean over tasks, resampled kBootstrapRounds times.
Estimate bootstrap_mean(std::span<const double> values, std::uint64_t seed);

// Of values from 0 to 1. Where all are 0 (or all 1) no resample differs, and the rule of three
// bounds the mean instead: a share of tasks that none of n showed is at most 3 / n (95 %).
Estimate bootstrap_rate(std::span<const double> values, std::uint64_t seed);

}  // namespace rollcall
