// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "trainer/learnability.h"
#include "trainer/train_options.h"

namespace rollcall {

// Of a run file: what decides how much a step samples and what becomes of it.
struct PlannedRun {
  BatchOptions batch;
  std::string advantage;  // algorithm.advantage
  std::int64_t steps = 0, train_tasks = 0;
  int workers = 0, rollouts_per_worker = 0;
  double hours = 0;                // that there are for it; 0: any number
  double rollouts_per_second = 0;  // as measured; 0: unknown

  // Rollouts of a step for which a twentieth of the hours suffices; 0: any number.
  std::int64_t most_rollouts_of_step() const;

  // Rollouts that a step of the run has in flight at once.
  std::int64_t in_flight() const;
};

constexpr double kFirstSignal = 8;  // signal mass of a step that moves a policy the right way

// Rollouts and hours. The learner's updates come on top: nothing has measured them yet.
struct Forecast {
  double rollouts_per_step = 0, signal_per_step = 0;
  double informative_share = 0;       // of the groups
  Estimate rollouts_to_first_signal;  // kFirstSignal of mass; infinite where none is seen
  double hours_to_first_signal = 0;   // from its mean
  double rollouts_of_run = 0, hours_of_run = 0;
};
Forecast forecast(const PlannedRun&, const Learnability&);

// What to change in the run file so that its steps have a signal; no settings: nothing.
struct Advice {
  std::int64_t group_size = 0, prompts = 0;
  std::vector<std::string> settings;  // "batch.group_size=64"
};
// `sparse`: too few tasks mixed at the sampled size: steps shall grow until they have a signal,
// unless a critic compares, which needs none inside a group.
Advice advise(const PlannedRun&, const Learnability&, bool sparse);
PlannedRun advised(PlannedRun, const Advice&, bool sparse);

}  // namespace rollcall
