// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "trainer/collector.h"
#include "trainer/metrics.h"

namespace rollcall {

// Throws Error (kAlarm) if faults left out more than `limit` of the step's rollouts; 0: never. What
// an earlier life of the run has accepted does not count again.
void refuse_if_many_lost(std::span<const Collected>, double limit, std::int64_t step);

// Whether what faults leave out is a random part of the tasks. Groups that lost a rollout to a
// fault are compared with those that lost none: a group's value is the mean reward of its graded
// rollouts less the mean of all groups of its step, so that a policy that gets better while faults
// come and go does not show. z is Welch's: the difference of the two means over its standard
// error, over all steps since the start of the process. What the lost rollouts would have earned
// stays unknown; that of their group is the best guess.
class DiscardWatch {
 public:
  struct Finding {
    double gap = 0;  // mean reward of groups with losses less that of the others
    double z = 0;
    std::int64_t groups_with_losses = 0, groups_without = 0;
  };
  static constexpr std::int64_t kFewestGroups = 10;  // of each kind, below which nothing is said

  void add(std::span<const Collected> step);
  std::optional<Finding> finding() const;
  MetricList metrics() const;  // of the finding, if there is one

 private:
  struct Sums {
    std::int64_t n = 0;
    double mean = 0, squares = 0;  // squares: of the deviations from the mean (Welford)
    void add(double value);
  };
  Sums with_losses_, without_;
};

}  // namespace rollcall
