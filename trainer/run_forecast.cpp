// SPDX-License-Identifier: Apache-2.0
#include "trainer/run_forecast.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rollcall {
namespace {

constexpr double kFewestInformative = 0.15;  // share of groups, below which groups grow
constexpr std::int64_t kSmallestAdvised = 8, kLargestAdvised = 256;
constexpr double kMostRollouts = 16384;  // of a step
constexpr double kFewestSteps = 20;      // for which there shall be time

double rollouts_of_step(const PlannedRun& run, const Learnability& l) {
  const BatchOptions& b = run.batch;
  const auto fixed = static_cast<double>(b.prompts * b.group_size);
  if (b.adaptive.target_signal > 0)
    return std::clamp(b.adaptive.target_signal / l.signal.mean,
                      static_cast<double>(b.adaptive.min_rollouts),
                      static_cast<double>(b.adaptive.max_rollouts));
  const double share = l.informative(b.group_size);
  return fixed * std::clamp(1 / share, 1.0, static_cast<double>(b.resample));
}

bool by_critic(const PlannedRun& run) { return run.advantage == "gae"; }

// Whether steps shall grow until they have their signal. Groups may then be as small as ever: what
// a rollout teaches hardly depends on them (docs/sparse-rewards.md).
bool shall_grow(const PlannedRun& run, bool sparse) { return sparse && !by_critic(run); }

std::int64_t advised_group(const PlannedRun& run, const Learnability& l, bool sparse) {
  const std::int64_t own = run.batch.group_size;
  if (by_critic(run) || l.informative(own) >= kFewestInformative) return own;
  if (shall_grow(run, sparse)) return std::max(own, kSmallestAdvised);
  std::int64_t size = kSmallestAdvised;
  while (size < own || (size < kLargestAdvised && l.informative(size) < kFewestInformative))
    size *= 2;
  return size;
}

// Enough groups for the wanted signal, as far as a step may grow.
std::int64_t advised_prompts(const PlannedRun& run, const Learnability& l, std::int64_t group,
                             bool sparse) {
  if (shall_grow(run, sparse)) return run.batch.prompts;
  const double signal = static_cast<double>(run.batch.prompts * group) * l.signal.mean;
  if (signal >= kFirstSignal) return run.batch.prompts;
  const double rollouts = std::min(kMostRollouts, kFirstSignal / l.signal.mean);
  const auto wanted = static_cast<std::int64_t>(std::ceil(rollouts / static_cast<double>(group)));
  return std::max(run.batch.prompts, std::min(wanted, run.train_tasks));
}

template <typename T>
void set_if_new(std::vector<std::string>& settings, const char* key, T is, T was) {
  if (is != was) settings.push_back(std::string(key) + "=" + std::to_string(is));
}

}  // namespace

std::int64_t PlannedRun::in_flight() const {
  const bool adaptive = batch.adaptive.target_signal > 0;
  const std::int64_t round =
      adaptive ? batch.adaptive.max_rollouts : batch.prompts * batch.group_size;
  return std::min(round, static_cast<std::int64_t>(workers) * rollouts_per_worker);
}

std::int64_t PlannedRun::most_rollouts_of_step() const {
  return static_cast<std::int64_t>(3600 * hours * rollouts_per_second / kFewestSteps);
}

Forecast forecast(const PlannedRun& run, const Learnability& l) {
  Forecast f;
  const double per_hour = 3600 * run.rollouts_per_second;
  f.rollouts_per_step = rollouts_of_step(run, l);
  f.signal_per_step = f.rollouts_per_step * l.signal.mean;
  f.informative_share = l.informative(run.batch.group_size);
  f.rollouts_to_first_signal = {kFirstSignal / l.signal.mean, kFirstSignal / l.signal.high_95,
                                kFirstSignal / l.signal.low_95};
  f.hours_to_first_signal = f.rollouts_to_first_signal.mean / per_hour;
  f.rollouts_of_run = f.rollouts_per_step * static_cast<double>(run.steps);
  f.hours_of_run = f.rollouts_of_run / per_hour;
  return f;
}

Advice advise(const PlannedRun& run, const Learnability& l, bool sparse) {
  const BatchOptions& b = run.batch;
  Advice advice{b.group_size, b.prompts, {}};
  if (!(l.signal.mean > 0)) return advice;
  advice.group_size = advised_group(run, l, sparse);
  advice.prompts = advised_prompts(run, l, advice.group_size, sparse);
  set_if_new(advice.settings, "batch.group_size", advice.group_size, b.group_size);
  set_if_new(advice.settings, "batch.prompts", advice.prompts, b.prompts);
  const PlannedRun changed = advised(run, advice, sparse);
  const AdaptiveOptions& a = changed.batch.adaptive;
  if (a.target_signal != b.adaptive.target_signal)
    advice.settings.push_back(fmt::format("batch.adaptive.target_signal={:g}", a.target_signal));
  if (a.target_signal > 0)
    set_if_new(advice.settings, "batch.adaptive.max_rollouts", a.max_rollouts,
               b.adaptive.max_rollouts);
  set_if_new(advice.settings, "batch.resample", changed.batch.resample, b.resample);
  return advice;
}

PlannedRun advised(PlannedRun run, const Advice& advice, bool sparse) {
  BatchOptions& b = run.batch;
  b.group_size = advice.group_size;
  b.prompts = advice.prompts;
  if (shall_grow(run, sparse)) {
    if (b.adaptive.target_signal == 0) b.adaptive.target_signal = kFirstSignal;
    b.resample = 1;
  }
  if (b.adaptive.target_signal > 0) {
    std::int64_t& most = b.adaptive.max_rollouts;
    if (run.most_rollouts_of_step() > 0) most = std::min(most, run.most_rollouts_of_step());
    most = std::max({most, b.prompts * b.group_size, b.adaptive.min_rollouts});
  }
  return run;
}

}  // namespace rollcall
