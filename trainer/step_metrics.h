// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>

#include "trainer/batch_scaler.h"
#include "trainer/collector.h"
#include "trainer/metrics.h"
#include "trainer/step_plan.h"
#include "trainer/training_loop.h"
#include "trainer/update.h"

namespace rollcall {

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Where a step's time went, and what its update did.
struct StepMetrics {
  double seconds_step = 0, seconds_rollout = 0, seconds_journal = 0, seconds_update = 0,
         seconds_publish = 0;
  double learning_rate = 0;
  double signal_mass = 0;  // what the batch scaler goes by
  TaskCounts tasks;
  double expected_groups = 0;
  std::int64_t rounds = 1;
  std::int64_t first_round = 0;  // rollouts of the first one, which no outcome of the step chose
  int workers = 0, workers_lost = 0;       // at the end of the step; during it
  std::optional<double> seconds_load_max;  // that a worker took to load weights; none: nobody does
  std::vector<double> penalties;           // taken off the rewards; see Updater::penalties()
  std::optional<PolicyLag> lag;            // where rollouts overlap with updates
  StepUpdate update;
  std::vector<double> advantages;  // of the rollouts in the loss
};

MetricList step_metrics(const StepMetrics&, const StepSignal&, std::span<const Collected>);
MetricList evaluation_metrics(const Evaluation&);

// The step in one line for a person.
std::string step_line(const StepMetrics&, const StepSignal&, std::span<const Collected>);
// The evaluation in one line, with what was left out of it.
std::string evaluation_line(const Evaluation&);

}  // namespace rollcall
