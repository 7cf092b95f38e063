// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "trainer/train_options.h"

namespace rollcall {

// What a run's steps were made by, until a resume changed it.
struct RunPeriod {
  std::int64_t end = 0;  // first step that is not of it
  BatchOptions batch;
  AlgorithmOptions algorithm;
  BaselineOnly baseline_only;
  std::int64_t max_lag = 0;  // steps that were planned ahead
  double grad_norm = 0;      // alarms.grad_norm
};

// Of `periods` in order, at least one; the last is that of all steps that are left.
inline const RunPeriod& period_of(std::span<const RunPeriod> periods, std::int64_t step) {
  const auto found =
      std::ranges::find_if(periods, [&](const RunPeriod& period) { return step < period.end; });
  return found == periods.end() ? periods.back() : *found;
}

}  // namespace rollcall
