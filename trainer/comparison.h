// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "trainer/bootstrap.h"
#include "trainer/pass_curve.h"

namespace rollcall {

// Two policies on the tasks that both have a graded rollout of, task by task.
struct Comparison {
  std::int64_t tasks = 0;
  Estimate difference;                       // of pass@1: the policy's less the baseline's
  std::int64_t won = 0, lost = 0, tied = 0;  // tasks, by their pass rates
  double sign_test_p = 1;                    // two-sided
};
Comparison compare_paired(std::span<const TaskOutcome> policy,
                          std::span<const TaskOutcome> baseline, std::uint64_t seed);

// Two-sided exact sign test: the chance that fair coins part `won` + `lost` tasks at least as
// unevenly. Ties are left out of it.
double sign_test(std::int64_t won, std::int64_t lost);

}  // namespace rollcall
