// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_making.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "comms/fault_injection.h"
#include "comms/log.h"

namespace rollcall {

std::vector<Collected> collect_rounds(std::uint64_t run_seed, std::int64_t step,
                                      std::int64_t& next_group, BatchScaler& scaler,
                                      const CollectRound& collect, StepMetrics& record) {
  const BatchScaler before = scaler;
  const std::int64_t first_group = next_group;
  std::vector<Collected> collected;
  while (const auto round = scaler.next_round()) {
    log_debug(fmt::format("step {}: {} tasks x {} rollouts: {}", step, round->tasks.size(),
                          round->group_size, round->reason));
    auto plan = plan_groups(run_seed, Split::kTrain, step, step, round->tasks, round->group_size,
                            next_group);
    for (Assignment& a : plan) a.rare = scaler.rare_success(a.task_row, round->group_size);
    next_group += static_cast<std::int64_t>(round->tasks.size());
    auto more = collect(plan);
    if (more.empty() && !plan.empty()) {
      scaler = before;
      next_group = first_group;
      return {};
    }
    scaler.observe(group_outcomes(more));
    std::ranges::move(more, std::back_inserter(collected));
  }
  record.signal_mass = scaler.signal();
  record.rounds = scaler.rounds();
  return collected;
}

StepBatch update_step(const TrainSetup& setup, Updater& updater,
                      std::span<const Collected> collected, std::int64_t committed_rows,
                      std::int64_t step, const StepSize& size, const std::function<void()>& between,
                      StepMetrics& record) {
  record.penalties = updater.penalties(collected, between);
  StepBatch batch = make_step_batch(collected, committed_rows,
                                    step_batch_options(setup.algorithm, setup.baseline_only), step,
                                    record.penalties);
  fault_point("step");
  record.update = updater.update(collected, batch, step, size, between);
  record.learning_rate = updater.learning_rate(step) * size.factor;
  return batch;
}

}  // namespace rollcall
