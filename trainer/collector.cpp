// SPDX-License-Identifier: Apache-2.0
#include "trainer/collector.h"

#include <algorithm>
#include <set>
#include <utility>

#include "comms/rollout_link.h"
#include "trainer/journal.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

// How long a poll waits, and how often `waiting` is asked, which may look at every worker.
constexpr std::chrono::milliseconds kWait{50};

// A step's evaluation comes before its training rollouts.
std::pair<std::int64_t, bool> place_of(std::int64_t step, Split split) {
  return {step, split == Split::kTrain};
}

}  // namespace

bool same_work(Assignment a, const Assignment& b) {
  a.attempt = b.attempt;
  a.rare = b.rare;
  return a == b;
}

std::size_t Collector::recover(const JournalReader& reader, std::int64_t first_row,
                               std::int64_t end_row) {
  std::set<std::int64_t> used;
  for (const UpdateUse& use : reader.uses()) used.insert(use.row);
  first_open_row_ = first_row;
  for (std::int64_t row = first_row; row < end_row; ++row) {
    Trajectory t = reader.read(row);
    if (lost_to_infrastructure(t) && !used.contains(row)) continue;
    const Key key{t.assignment.group, t.assignment.member};
    recovered_.insert_or_assign(key, Collected{row, std::move(t), true});
  }
  return recovered_.size();
}

std::vector<Collected> Collector::collect(std::span<const Assignment> assignments,
                                          const std::function<void(const Trajectory&)>& arrived,
                                          const std::function<Collecting()>& waiting) {
  std::vector<Collected> results(assignments.size());
  std::map<Key, std::size_t> missing;
  for (std::size_t i = 0; i < assignments.size(); ++i) {
    const Key key{assignments[i].group, assignments[i].member};
    const auto found = recovered_.find(key);
    if (found != recovered_.end() &&
        same_work(found->second.trajectory.assignment, assignments[i])) {
      results[i] = std::move(found->second);
      recovered_.erase(found);
      arrived(results[i].trajectory);
    } else {
      missing.emplace(key, i);
      server_.submit(assignments[i]);
    }
  }
  bool finishing = false;
  Collecting next = Collecting::kOn;
  Clock::time_point asked;
  while (!missing.empty()) {
    for (Trajectory& t : server_.poll_for(kWait)) {
      const auto found = missing.find({t.assignment.group, t.assignment.member});
      if (found == missing.end()) continue;                           // of a step that was given up
      if (finishing && t.fault == FaultReason::kCancelled) continue;  // lost with its worker
      const std::int64_t row = journal_.append(t);
      results[found->second] = {row, std::move(t), false};
      arrived(results[found->second].trajectory);
      missing.erase(found);
    }
    if (const auto now = Clock::now(); missing.empty() || now - asked >= kWait) {
      asked = now;
      next = waiting();
    }
    if (next != Collecting::kOn && !std::exchange(finishing, true)) server_.withdraw();
    if (next == Collecting::kLeave || (finishing && server_.in_flight() == 0)) return {};
  }
  if (finishing) return {};
  return results;
}

void Collector::close(std::int64_t step, Split split) {
  std::erase_if(recovered_, [&](const auto& entry) {
    const Assignment& a = entry.second.trajectory.assignment;
    return place_of(a.step, a.split) <= place_of(step, split);
  });
  first_open_row_ = journal_.rows();
  for (const auto& [key, open] : recovered_) first_open_row_ = std::min(first_open_row_, open.row);
}

}  // namespace rollcall
