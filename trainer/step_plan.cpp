// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "comms/error.h"
#include "comms/log.h"
#include "model/sampling.h"

namespace rollcall {
namespace {

bool valid(const Trajectory& t) { return t.fault == FaultReason::kNone; }

// Collected indices of each group's valid members, in order.
struct Group {
  std::int64_t task = 0;
  std::vector<std::size_t> members;
};

std::vector<Group> valid_groups(std::span<const Collected> collected) {
  std::vector<Group> groups;
  std::int64_t current = -1;
  for (std::size_t i = 0; i < collected.size(); ++i) {
    const Trajectory& t = *collected[i].trajectory;
    if (groups.empty() || t.assignment.group != current)
      groups.push_back({t.assignment.task_row, {}});
    current = t.assignment.group;
    if (!valid(t)) continue;
    groups.back().members.push_back(i);
  }
  return groups;
}

double passed(const Grade& grade) { return grade.passed ? 1 : 0; }

std::vector<double> compared_of(const Group& group, std::span<const Collected> collected,
                                AdvantageKind kind, std::span<const double> penalties = {}) {
  std::vector<double> values;
  for (const auto i : group.members)
    values.push_back(compared_value(collected[i].trajectory->grade, kind) -
                     (penalties.empty() ? 0.0 : penalties[i]));
  return values;
}

bool in_baseline_only(const Trajectory& t, const BaselineOnly& rule) {
  return (rule.limits && is_limit(t.end)) || (rule.void_turns && has_void_turn(t));
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

// NaN if none is valid.
double mean_of_valid(std::span<const Collected> collected, double (*value)(const Grade&)) {
  double sum = 0, count = 0;
  for (const Collected& c : collected) {
    if (!valid(*c.trajectory)) continue;
    sum += value(c.trajectory->grade);
    ++count;
  }
  return sum / count;
}

}  // namespace

double reward_mean(std::span<const Collected> collected) {
  return mean_of_valid(collected, [](const Grade& grade) { return grade.reward; });
}

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

double compared_value(const Grade& grade, AdvantageKind kind) {
  return compares_passes(kind) ? passed(grade) : grade.reward;
}

std::vector<GroupOutcome> group_outcomes(std::span<const Collected> collected, AdvantageKind kind) {
  std::vector<GroupOutcome> outcomes;
  for (const Group& group : valid_groups(collected))
    outcomes.push_back({group.task, compared_of(group, collected, kind)});
  return outcomes;
}

VersionSpan sampled_versions(const Trajectory& t) {
  VersionSpan span{t.assignment.version, t.assignment.version};
  bool first = true;
  for (std::size_t i = 0; i < t.tokens.size(); ++i) {
    if (t.is_action[i] == 0) continue;
    const std::int64_t version = t.token_version[i];
    span.oldest = first ? version : std::min(span.oldest, version);
    span.newest = first ? version : std::max(span.newest, version);
    first = false;
  }
  return span;
}

PolicyLag policy_lag(std::span<const Collected> collected, std::int64_t step) {
  PolicyLag lag;
  double tokens = 0, rollouts = 0, sum = 0, mixed = 0;
  for (const Collected& c : collected) {
    const Trajectory& t = *c.trajectory;
    if (!valid(t)) continue;
    for (std::size_t i = 0; i < t.tokens.size(); ++i) {
      if (t.is_action[i] == 0) continue;
      sum += static_cast<double>(step - t.token_version[i]);
      ++tokens;
    }
    const VersionSpan versions = sampled_versions(t);
    lag.max = std::max(lag.max, static_cast<double>(step - versions.oldest));
    mixed += versions.oldest != versions.newest ? 1 : 0;
    ++rollouts;
  }
  lag.mean = sum / std::max(1.0, tokens);
  lag.mixed_share = mixed / std::max(1.0, rollouts);
  return lag;
}

StepBatchOptions step_batch_options(const AlgorithmOptions& a, const BaselineOnly& baseline_only,
                                    std::int64_t max_lag, double expected_groups) {
  return {{.kind = advantage_kind(a.advantage), .k = a.passk_k},
          baseline_only,
          a.kl_in_loss(),
          max_lag,
          a.denominator == "all" ? expected_groups : 0};
}

StepBatch make_step_batch(std::span<const Collected> collected, std::int64_t committed_rows,
                          const StepBatchOptions& options, std::int64_t step,
                          std::span<const double> penalties) {
  StepBatch batch;
  for (const auto& c : collected) {
    if (c.row >= committed_rows) {
      throw Error(fmt::format("step {}: row {} of the journal is not committed, only {} rows are",
                              step, c.row, committed_rows));
    }
    const Trajectory& t = *c.trajectory;
    const double penalty = penalties.empty() ? 0.0 : penalties[batch.uses.size()];
    batch.uses.push_back({c.row, step, t.grade.reward - penalty, 0.0, false});
    ++batch.signal.rollouts;
    batch.signal.faults += infrastructure_failed(t.fault) ? 1 : 0;
    batch.signal.masked += t.fault == FaultReason::kMasked ? 1 : 0;
  }
  batch.signal.reward_mean = reward_mean(collected);
  batch.signal.pass_rate = mean_of_valid(collected, passed);

  const bool by_critic = options.advantage.kind == AdvantageKind::kGae;
  const std::size_t least_members = by_critic ? 1 : 2;
  std::vector<Group> groups = valid_groups(collected);
  batch.signal.groups = static_cast<std::int64_t>(groups.size());
  const auto foreign = [&](std::size_t member) {
    const VersionSpan versions = sampled_versions(*collected[member].trajectory);
    return versions.oldest < step - options.max_lag || versions.newest > step;
  };
  std::erase_if(groups, [&](const Group& g) {
    const bool left_out = std::ranges::any_of(g.members, foreign);
    if (left_out)
      log_warning(
          fmt::format("step {}: a group was sampled by another policy than this step's, or "
                      "by one more than {} versions behind (policy.max_lag); it is left "
                      "out of the update",
                      step, options.max_lag));
    return left_out || g.members.size() < least_members;
  });
  batch.signal.groups_dropped = batch.signal.groups - static_cast<std::int64_t>(groups.size());

  // A group that teaches nothing leaves before the advantages: with each of them the step's
  // deviation would shrink, and a lone success among many failures would pull hardest. Penalties
  // alone are nothing to learn from: divided by their own deviation they would be as large as any
  // success.
  const bool every_group = by_critic || options.every_group_in_loss;
  std::vector<Group> kept;
  std::vector<std::vector<double>> rewards;
  for (Group& g : groups) {
    const auto earned = compared_of(g, collected, options.advantage.kind);
    count_group(batch.signal, earned);
    batch.signal.groups_passed += std::ranges::any_of(
        g.members, [&](std::size_t i) { return collected[i].trajectory->grade.passed; });
    if (!every_group && !has_signal(earned)) continue;
    rewards.push_back(compared_of(g, collected, options.advantage.kind, penalties));
    kept.push_back(std::move(g));
  }
  const auto advantages =
      by_critic ? std::vector<std::vector<double>>{} : group_advantages(rewards, options.advantage);
  std::int64_t prompt = 0;
  for (std::size_t g = 0; g < kept.size(); ++g) {
    if (!every_group && !carries_gradient(advantages[g])) continue;
    const std::size_t before = batch.in_loss.size();
    for (std::size_t m = 0; m < kept[g].members.size(); ++m) {
      const std::size_t i = kept[g].members[m];
      if (in_baseline_only(*collected[i].trajectory, options.baseline_only)) continue;
      batch.uses[i].advantage = by_critic ? 0.0 : advantages[g][m];
      batch.uses[i].in_loss = true;
      batch.in_loss.push_back(i);
      batch.prompt.push_back(prompt);
    }
    prompt += batch.in_loss.size() > before ? 1 : 0;
  }
  if (options.expected_groups > 0) {
    const double valid =
        static_cast<double>(groups.size()) / static_cast<double>(batch.signal.groups);
    const double share = static_cast<double>(prompt) / (valid * options.expected_groups);
    for (const std::size_t i : batch.in_loss) batch.uses[i].advantage *= share;
  }
  return batch;
}

std::vector<LossRollout> loss_rollouts(std::span<const Collected> collected,
                                       const StepBatch& batch) {
  std::vector<LossRollout> rollouts;
  for (std::size_t k = 0; k < batch.in_loss.size(); ++k) {
    const std::size_t i = batch.in_loss[k];
    rollouts.push_back({collected[i].trajectory.get(), batch.prompt[k], batch.uses[i].reward,
                        batch.uses[i].advantage});
  }
  return rollouts;
}

std::vector<LossRollout> valid_rollouts(std::span<const Collected> collected) {
  std::vector<LossRollout> rollouts;
  std::int64_t prompt = 0;
  for (const Group& group : valid_groups(collected)) {
    for (const std::size_t i : group.members)
      rollouts.push_back(
          {collected[i].trajectory.get(), prompt, collected[i].trajectory->grade.reward});
    prompt += group.members.empty() ? 0 : 1;
  }
  return rollouts;
}

std::vector<TrainSequence> train_sequences(std::span<const LossRollout> rollouts) {
  std::vector<TrainSequence> sequences;
  for (const LossRollout& r : rollouts) {
    const Trajectory& t = *r.trajectory;
    sequences.push_back({t.tokens, t.is_action, t.behavior_logprobs, t.prompt_length, r.prompt,
                         r.advantage, r.reward});
  }
  return sequences;
}

}  // namespace rollcall
