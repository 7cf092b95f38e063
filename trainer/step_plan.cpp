// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "comms/error.h"
#include "comms/log.h"
#include "model/sampling.h"

namespace rollcall {
namespace {

bool valid(const Trajectory& t) { return t.fault == FaultReason::kNone; }

// The one version that sampled the trajectory's action tokens, or -1 if there are several.
std::int64_t sampled_version(const Trajectory& t) {
  std::int64_t version = t.assignment.version;
  for (std::size_t i = 0; i < t.tokens.size(); ++i)
    if (t.is_action[i] != 0 && t.token_version[i] != version) return -1;
  return version;
}

// Collected indices of each group's valid members, in order.
struct Group {
  std::int64_t task = 0;
  std::vector<std::size_t> members;
  bool mixed = false;
};

std::vector<Group> valid_groups(std::span<const Collected> collected) {
  std::vector<Group> groups;
  std::int64_t current = -1;
  for (std::size_t i = 0; i < collected.size(); ++i) {
    const Trajectory& t = collected[i].trajectory;
    if (groups.empty() || t.assignment.group != current)
      groups.push_back({t.assignment.task_row, {}, false});
    current = t.assignment.group;
    if (!valid(t)) continue;
    groups.back().mixed |= sampled_version(t) != collected.front().trajectory.assignment.version;
    groups.back().members.push_back(i);
  }
  return groups;
}

std::vector<double> rewards_of(const Group& group, std::span<const Collected> collected) {
  std::vector<double> rewards;
  for (const auto i : group.members) rewards.push_back(collected[i].trajectory.grade.reward);
  return rewards;
}

bool carries_gradient(std::span<const double> advantages) {
  return std::any_of(advantages.begin(), advantages.end(), [](double a) { return a != 0; });
}

void count_group(StepSignal& signal, std::span<const double> rewards) {
  if (has_signal(rewards)) {
    ++signal.groups_signal;
  } else if (rewards.front() > 0) {
    ++signal.groups_all_one;
  } else {
    ++signal.groups_all_zero;
  }
}

}  // namespace

std::vector<Assignment> plan_groups(std::uint64_t run_seed, Split split, std::int64_t step,
                                    std::int64_t version, std::span<const std::int64_t> task_rows,
                                    std::int64_t group_size, std::int64_t first_group) {
  std::vector<Assignment> plan;
  for (std::size_t g = 0; g < task_rows.size(); ++g) {
    const std::int64_t group = first_group + static_cast<std::int64_t>(g);
    for (std::int64_t member = 0; member < group_size; ++member) {
      const bool train = split == Split::kTrain;
      const std::uint64_t path[] = {static_cast<std::uint64_t>(split),
                                    static_cast<std::uint64_t>(train ? group : task_rows[g]),
                                    static_cast<std::uint64_t>(member)};
      plan.push_back({step, group, static_cast<std::int32_t>(member), 0, task_rows[g],
                      derive_seed(run_seed, path), version, split});
    }
  }
  return plan;
}

std::vector<GroupOutcome> group_outcomes(std::span<const Collected> collected) {
  std::vector<GroupOutcome> outcomes;
  for (const Group& group : valid_groups(collected))
    outcomes.push_back({group.task, rewards_of(group, collected)});
  return outcomes;
}

StepBatch make_step_batch(std::span<const Collected> collected, std::int64_t committed_rows,
                          const AdvantageOptions& options, std::int64_t step) {
  StepBatch batch;
  for (const auto& c : collected) {
    if (c.row >= committed_rows) {
      throw Error(fmt::format("step {}: row {} of the journal is not committed, only {} rows are",
                              step, c.row, committed_rows));
    }
    const Trajectory& t = c.trajectory;
    batch.uses.push_back({c.row, step, t.grade.reward, 0.0, false});
    ++batch.signal.rollouts;
    batch.signal.faults += infrastructure_failed(t.fault) ? 1 : 0;
    batch.signal.masked += t.fault == FaultReason::kMasked ? 1 : 0;
    batch.signal.reward_mean += valid(t) ? t.grade.reward : 0.0;
    batch.signal.pass_rate += valid(t) && t.grade.passed ? 1.0 : 0.0;
  }
  const auto graded = static_cast<double>(batch.signal.rollouts - batch.signal.faults -
                                          batch.signal.masked);  // of 0 there is no mean: NaN
  batch.signal.reward_mean /= graded;
  batch.signal.pass_rate /= graded;

  const bool by_critic = options.kind == AdvantageKind::kGae;
  const std::size_t least_members = by_critic ? 1 : 2;
  std::vector<Group> groups = valid_groups(collected);
  batch.signal.groups = static_cast<std::int64_t>(groups.size());
  std::erase_if(groups, [&](const Group& g) {
    if (g.mixed)
      log_warning(
          "a group was sampled by more than one policy version; it is left out of the update");
    return g.mixed || g.members.size() < least_members;
  });
  batch.signal.groups_dropped = batch.signal.groups - static_cast<std::int64_t>(groups.size());

  std::vector<std::vector<double>> rewards;
  for (const auto& g : groups) rewards.push_back(rewards_of(g, collected));
  const auto advantages =
      by_critic ? std::vector<std::vector<double>>{} : group_advantages(rewards, options);
  std::int64_t prompt = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    count_group(batch.signal, rewards[g]);
    if (!by_critic && !carries_gradient(advantages[g])) continue;
    for (std::size_t m = 0; m < groups[g].members.size(); ++m) {
      const std::size_t i = groups[g].members[m];
      batch.uses[i].advantage = by_critic ? 0.0 : advantages[g][m];
      batch.uses[i].in_loss = true;
      batch.in_loss.push_back(i);
      batch.prompt.push_back(prompt);
    }
    ++prompt;
  }
  return batch;
}

std::vector<TrainSequence> train_sequences(std::span<const Trajectory* const> trajectories,
                                           std::span<const double> advantages,
                                           std::span<const std::int64_t> prompts) {
  std::vector<TrainSequence> sequences;
  for (std::size_t i = 0; i < trajectories.size(); ++i) {
    const Trajectory& t = *trajectories[i];
    sequences.push_back({t.tokens, t.is_action, t.behavior_logprobs, t.prompt_length, prompts[i],
                         advantages[i], t.grade.reward});
  }
  return sequences;
}

}  // namespace rollcall
