// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_making.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <ranges>

#include "comms/fault_injection.h"
#include "comms/log.h"

namespace rollcall {
namespace {

// A step's version is its number; its rollouts begin with the one that was the newest when they
// were planned.
std::vector<Assignment> assignments(const TrainSetup& setup, std::int64_t step,
                                    const BatchScaler& scaler, const BatchScaler::Round& round) {
  const std::int64_t version = std::max<std::int64_t>(0, step - setup.max_lag);
  auto plan = plan_groups(setup.run.seed, Split::kTrain, step, version, round.tasks,
                          round.group_size, round.first_group);
  for (Assignment& a : plan) a.rare = scaler.rare_success(a.task_row, round.group_size);
  return plan;
}

void start_ahead(const TrainSetup& setup, std::int64_t step, BatchScaler& scaler,
                 const RolloutSource& source) {
  scaler.plan_ahead(setup.max_lag + 1);
  if (!source.start) return;
  for (const auto& round : scaler.ahead() | std::views::drop(1))
    if (++step < setup.run.steps) source.start(assignments(setup, step, scaler, round));
}

}  // namespace

std::vector<Collected> collect_rounds(const TrainSetup& setup, std::int64_t step,
                                      BatchScaler& scaler, const RolloutSource& source,
                                      StepMetrics& record) {
  const BatchScaler before = scaler;
  start_ahead(setup, step, scaler, source);
  std::vector<Collected> collected;
  while (const auto round = scaler.next_round()) {
    log_debug(fmt::format("step {}: {} tasks x {} rollouts: {}", step, round->tasks.size(),
                          round->group_size, round->reason));
    const auto plan = assignments(setup, step, scaler, *round);
    auto more = source.collect(plan);
    if (more.empty() && !plan.empty()) {
      scaler = before;
      return {};
    }
    scaler.observe(group_outcomes(more, advantage_kind(setup.algorithm.advantage)));
    if (collected.empty()) record.first_round = std::ssize(more);
    std::ranges::move(more, std::back_inserter(collected));
  }
  record.signal_mass = scaler.signal();
  record.rounds = scaler.rounds();
  record.tasks = scaler.task_counts();
  record.expected_groups = scaler.expected_groups();
  return collected;
}

StepBatch update_step(const TrainSetup& setup, Updater& updater,
                      std::span<const Collected> collected, std::int64_t committed_rows,
                      std::int64_t step, const StepSize& size, const std::function<void()>& between,
                      StepMetrics& record) {
  record.penalties = updater.penalties(collected, between);
  StepBatch batch = make_step_batch(collected, committed_rows,
                                    step_batch_options(setup.algorithm, setup.baseline_only,
                                                       setup.max_lag, record.expected_groups),
                                    step, record.penalties);
  if (setup.max_lag > 0) record.lag = policy_lag(collected, step);
  fault_point("step");
  record.update = updater.update(collected, batch, step, size, between);
  record.learning_rate = updater.learning_rate(step) * size.factor;
  for (const std::size_t i : batch.in_loss) record.advantages.push_back(batch.uses[i].advantage);
  return batch;
}

}  // namespace rollcall
