// SPDX-License-Identifier: Apache-2.0
#include "trainer/batch_replay.h"

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "comms/error.h"
#include "trainer/journal.h"
#include "trainer/step_plan.h"

namespace rollcall {
namespace {

struct UsedGroup {
  std::int64_t id = 0;
  GroupOutcome outcome;
  std::int64_t rollouts = 0;  // valid or not
};

std::map<std::int64_t, std::vector<UsedGroup>> used_groups(const JournalReader& journal,
                                                           std::span<const RunPeriod> periods) {
  std::map<std::int64_t, std::vector<UsedGroup>> steps;
  for (const UpdateUse& use : journal.uses()) {
    const Trajectory row = journal.read_row(use.row);
    auto& groups = steps[use.step];
    if (groups.empty() || groups.back().id != row.assignment.group)
      groups.push_back({row.assignment.group, {row.assignment.task_row, {}}});
    ++groups.back().rollouts;
    // What the scaler saw: a KL penalty comes off after it has decided.
    if (row.fault == FaultReason::kNone)
      groups.back().outcome.rewards.push_back(compared_value(
          row.grade, advantage_kind(period_of(periods, use.step).algorithm.advantage)));
  }
  return steps;
}

}  // namespace

// "4096 rows, xxh3 ..." of what the journal says about its run.
std::int64_t train_tasks(const JournalReader& journal) try {
  return std::stoll(
      nlohmann::json::parse(journal.about()).at("inputs").at("data.train").get<std::string>());
} catch (const std::exception& error) {
  throw Error(std::string("the journal does not say how many tasks data.train has: ") +
              error.what());
}

std::vector<BatchDecision> replay_batches(const JournalReader& journal,
                                          std::span<const RunPeriod> periods, std::int64_t tasks,
                                          std::uint64_t seed) {
  const RunPeriod* period = &periods.front();
  BatchScaler scaler(period->batch, tasks, seed);
  std::vector<BatchDecision> decisions;
  for (const auto& [step, groups] : used_groups(journal, periods)) {
    if (const RunPeriod* now = &period_of(periods, step); now != period) {
      scaler = scaler.with(now->batch);
      period = now;
    }
    BatchDecision& decision = decisions.emplace_back();
    decision.step = step;
    std::size_t next = 0;
    const auto take = [&](const BatchScaler::Round& round) {
      std::vector<GroupOutcome> outcomes;
      for (std::size_t i = 0; i < round.tasks.size(); ++i) {
        const bool same = next + i < groups.size() &&
                          groups[next + i].outcome.task == round.tasks[i] &&
                          groups[next + i].rollouts == round.group_size;
        if (!same) return std::vector<GroupOutcome>();
        outcomes.push_back(groups[next + i].outcome);
      }
      next += outcomes.size();
      return outcomes;
    };
    scaler.plan_ahead(period->max_lag + 1);
    while (auto round = scaler.next_round()) {
      const auto outcomes = take(*round);
      if (outcomes.empty()) break;
      scaler.observe(outcomes);
      decision.rounds.push_back(std::move(*round));
    }
    decision.signal = scaler.signal();
    decision.step_size = scaler.step_size();
    scaler.end_step();
    if (next != groups.size() || decision.rounds.empty())
      throw Error("step " + std::to_string(step) +
                      " of the journal sampled other tasks than these settings would",
                  "batch, run.seed or data.train of the run's config.yaml are not those it was "
                  "sampled with");
  }
  return decisions;
}

}  // namespace rollcall
