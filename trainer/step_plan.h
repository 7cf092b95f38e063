// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comms/trajectory.h"
#include "trainer/advantages.h"
#include "trainer/batch_scaler.h"
#include "trainer/collector.h"
#include "trainer/journal.h"
#include "trainer/packing.h"

namespace rollcall {

// Assignments of one step: `group_size` members for each task row, groups numbered from
// `first_group`, seeds from (run seed, split, step or row, group member). Evaluation seeds do not
// depend on the step, so that two policies meet the same draws.
std::vector<Assignment> plan_groups(std::uint64_t run_seed, Split split, std::int64_t step,
                                    std::int64_t version, std::span<const std::int64_t> task_rows,
                                    std::int64_t group_size, std::int64_t first_group);

// What an advantage compares, before a penalty: the reward, or 1 where the rollout passed.
double compared_value(const Grade&, AdvantageKind);

// Of every group, in order: compared_value() of its valid members.
std::vector<GroupOutcome> group_outcomes(std::span<const Collected>, AdvantageKind);

// Over valid rollouts; NaN if there are none.
double reward_mean(std::span<const Collected>);

// What a step's rewards say, before any gradient.
struct StepSignal {
  std::int64_t groups = 0;         // planned
  std::int64_t groups_signal = 0;  // rewards differ
  std::int64_t groups_all_zero = 0, groups_all_one = 0;
  std::int64_t groups_passed = 0;   // with a rollout that passed, of the three above
  std::int64_t groups_dropped = 0;  // too few valid members, or of another policy
  std::int64_t rollouts = 0;
  std::int64_t faults = 0, masked = 0;    // rollouts left out
  double reward_mean = 0, pass_rate = 0;  // over valid rollouts; NaN if there are none
};

struct StepBatchOptions {
  AdvantageOptions advantage;
  BaselineOnly baseline_only = {};
  bool every_group_in_loss = false;  // a KL in the loss pulls at groups without variance too
  std::int64_t max_lag = 0;          // policy versions that a sampled token may be behind
  // Advantages times the groups in the loss over so many, less the share of groups that were
  // dropped; 0: as they are.
  double expected_groups = 0;
};

// `expected_groups`: BatchScaler's.
StepBatchOptions step_batch_options(const AlgorithmOptions&, const BaselineOnly&,
                                    std::int64_t max_lag, double expected_groups);

// The policy versions that sampled a trajectory's action tokens; without any, its assignment's.
struct VersionSpan {
  std::int64_t oldest = 0, newest = 0;
};
VersionSpan sampled_versions(const Trajectory&);

// How old the policies were that sampled what a step learns from.
struct PolicyLag {
  double mean = 0, max = 0;  // versions, over the sampled tokens of valid rollouts
  double mixed_share = 0;    // of the valid rollouts: sampled by several versions
};
PolicyLag policy_lag(std::span<const Collected>, std::int64_t step);

struct StepBatch {
  std::vector<UpdateUse> uses;       // one per collected trajectory
  std::vector<std::size_t> in_loss;  // indices into the collected list
  std::vector<std::int64_t> prompt;  // step-wide prompt number of each entry of in_loss
  StepSignal signal;
};

// Groups by id, members by launch index (the order of `collected`): rewards, advantages, and which
// trajectories carry gradient. A fault leaves loss and baseline; a group without two valid members
// is dropped; a group without variance, or with no advantage but 0, stays in the statistics and
// leaves the loss (the former also the deviation of the step's rewards, unless
// `every_group_in_loss`); a group in which a token was sampled by another policy version than those
// from `step` - max_lag to `step` is dropped and counted. With AdvantageKind::kGae nothing is
// compared inside a group: every other valid rollout is in the loss, of groups of one and without
// variance too, and the learners make the advantages. `penalties`, one per trajectory or none, are
// taken off the rewards before they are compared; the signal is that of the rewards themselves.
// Throws Error for a trajectory whose row is not below `committed_rows`: no update rests on what a
// crash could lose.
StepBatch make_step_batch(std::span<const Collected> collected, std::int64_t committed_rows,
                          const StepBatchOptions&, std::int64_t step,
                          std::span<const double> penalties = {});

// A rollout as the learners get it.
struct LossRollout {
  const Trajectory* trajectory = nullptr;
  std::int64_t prompt = 0;  // step-wide number
  double reward = 0, advantage = 0;
};

// What a step's loss is made of, viewing `collected`.
std::vector<LossRollout> loss_rollouts(std::span<const Collected> collected, const StepBatch&);

// Every rollout that has a reward, without advantages, viewing `collected`; prompts are groups.
std::vector<LossRollout> valid_rollouts(std::span<const Collected> collected);

// Viewing the trajectories.
std::vector<TrainSequence> train_sequences(std::span<const LossRollout>);

}  // namespace rollcall
