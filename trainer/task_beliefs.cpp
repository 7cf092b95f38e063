// SPDX-License-Identifier: Apache-2.0
#include "trainer/task_beliefs.h"

#include <cmath>

namespace rollcall {
namespace {

constexpr double kPriorRollouts = 1;  // what the rate of the others weighs
constexpr double kFadeTask = 0.98;    // an update; half is left after 34
constexpr double kFadeRecent = 0.8;

}  // namespace

void TaskBeliefs::add(std::int64_t task, double successes, double failures) {
  Counts& counts = state_.tasks[task];
  const double kept = std::pow(kFadeTask, static_cast<double>(state_.updates - counts.update));
  counts = {counts.successes * kept + successes, counts.failures * kept + failures, state_.updates};
  state_.recent.successes += successes;
  state_.recent.failures += failures;
}

void TaskBeliefs::update() {
  ++state_.updates;
  state_.recent.successes *= kFadeRecent;
  state_.recent.failures *= kFadeRecent;
}

TaskBeliefs::Counts TaskBeliefs::posterior(std::int64_t task) const {
  // Never quite 0 or 1: a Beta distribution needs both counts above 0.
  const Counts& recent = state_.recent;
  const double rate = (recent.successes + 0.01) / (recent.successes + recent.failures + 0.02);
  Counts counts{kPriorRollouts * rate, kPriorRollouts * (1 - rate), state_.updates};
  const auto own = state_.tasks.find(task);
  if (own == state_.tasks.end()) return counts;
  const double kept = std::pow(kFadeTask, static_cast<double>(state_.updates - own->second.update));
  counts.successes += kept * own->second.successes;
  counts.failures += kept * own->second.failures;
  return counts;
}

double TaskBeliefs::signal(std::int64_t task) const {
  const auto [a, b, update] = posterior(task);
  return a * b / ((a + b) * (a + b + 1));
}

double TaskBeliefs::rate(std::int64_t task) const {
  const Counts c = posterior(task);
  return c.successes / (c.successes + c.failures);
}

}  // namespace rollcall
