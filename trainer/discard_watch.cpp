// SPDX-License-Identifier: Apache-2.0
#include "trainer/discard_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "comms/error.h"
#include "trainer/metric_names.h"

namespace rollcall {
namespace {

struct GroupRewards {
  double sum = 0;
  int graded = 0;
  bool lost = false;
  double mean() const { return sum / graded; }
};

// Of the groups that have a reward at all.
std::map<std::int64_t, GroupRewards> group_rewards(std::span<const Collected> step) {
  std::map<std::int64_t, GroupRewards> groups;
  for (const Collected& c : step) {
    const Trajectory& t = *c.trajectory;
    GroupRewards& group = groups[t.assignment.group];
    group.lost = group.lost || lost_to_infrastructure(t);
    if (t.fault != FaultReason::kNone || lost_to_infrastructure(t)) continue;
    group.sum += t.grade.reward;
    ++group.graded;
  }
  std::erase_if(groups, [](const auto& entry) { return entry.second.graded == 0; });
  return groups;
}

}  // namespace

void refuse_if_many_lost(std::span<const Collected> step, double limit, std::int64_t number) {
  const auto is_lost = [](const Collected& c) {
    return infrastructure_failed(c.trajectory->fault) && !c.recovered;
  };
  const auto lost = std::count_if(step.begin(), step.end(), is_lost);
  const double share = static_cast<double>(lost) / static_cast<double>(step.size());
  if (limit == 0 || step.empty() || share <= limit) return;
  const auto first = std::find_if(step.begin(), step.end(), is_lost);
  throw Error(
      fmt::format("step {}: faults left out {} of {} rollouts, more than alarms.discard_share "
                  "({:.4g}) allows; the first: {} ({}). The step was not applied",
                  number, lost, step.size(), limit, to_string(first->trajectory->fault),
                  first->trajectory->fault_detail),
      "mend what it names and start again: the run resumes and makes those rollouts anew; or raise "
      "alarms.discard_share",
      ExitCode::kAlarm);
}

void DiscardWatch::Sums::add(double value) {
  const double delta = value - mean;
  mean += delta / static_cast<double>(++n);
  squares += delta * (value - mean);
}

void DiscardWatch::add(std::span<const Collected> step) {
  const auto groups = group_rewards(step);
  double mean = 0;
  for (const auto& [id, group] : groups) mean += group.mean() / static_cast<double>(groups.size());
  for (const auto& [id, group] : groups)
    (group.lost ? with_losses_ : without_).add(group.mean() - mean);
}

std::optional<DiscardWatch::Finding> DiscardWatch::finding() const {
  if (std::min(with_losses_.n, without_.n) < kFewestGroups) return std::nullopt;
  const auto error_squared = [](const Sums& s) {
    return s.squares / static_cast<double>(s.n - 1) / static_cast<double>(s.n);
  };
  const double error = std::sqrt(error_squared(with_losses_) + error_squared(without_));
  const double gap = with_losses_.mean - without_.mean;
  // Without any spread a gap is certain, or there is none.
  const double z = error > 0 ? gap / error : gap == 0 ? 0 : std::copysign(HUGE_VAL, gap);
  return Finding{gap, z, with_losses_.n, without_.n};
}

MetricList DiscardWatch::metrics() const {
  const auto found = finding();
  if (!found) return {};
  return {{metric::kDiscardRewardGap, found->gap}, {metric::kDiscardRewardZ, found->z}};
}

}  // namespace rollcall
