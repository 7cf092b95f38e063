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

Collector::Key Collector::key_of(const Assignment& a) { return {a.group, a.member}; }

bool Collector::holds(const Assignment& wanted) const {
  const auto found = held_.find(key_of(wanted));
  return found != held_.end() && same_work(found->second.trajectory->assignment, wanted);
}

std::size_t Collector::recover(const JournalReader& reader, std::int64_t first_row,
                               std::int64_t end_row) {
  std::set<std::int64_t> used;
  for (const UpdateUse& use : reader.uses()) used.insert(use.row);
  first_open_row_ = first_row;
  for (std::int64_t row = first_row; row < end_row; ++row) {
    const auto t = std::make_shared<const Trajectory>(reader.read(row));
    if (lost_to_infrastructure(*t) && !used.contains(row)) continue;
    held_.insert_or_assign(key_of(t->assignment), Collected{row, t, true});
  }
  return held_.size();
}

void Collector::start(std::span<const Assignment> assignments) {
  for (const Assignment& a : assignments)
    if (!holds(a) && under_way_.insert(key_of(a)).second) server_.submit(a);
}

std::vector<Collector::Key> Collector::take(std::chrono::milliseconds wait) {
  std::vector<Key> taken;
  for (Trajectory& t : server_.poll_for(wait)) {
    if (finishing_ && t.fault == FaultReason::kCancelled) continue;  // lost with its worker
    const Key key = key_of(t.assignment);
    if (under_way_.erase(key) == 0) continue;
    const auto kept = std::make_shared<const Trajectory>(std::move(t));
    held_.insert_or_assign(key, Collected{journal_.append(kept), kept, false});
    taken.push_back(key);
  }
  return taken;
}

std::vector<Collected> Collector::collect(std::span<const Assignment> assignments,
                                          const std::function<void(const Trajectory&)>& arrived,
                                          const std::function<Collecting()>& waiting) {
  start(assignments);
  std::vector<Collected> results(assignments.size());
  std::map<Key, std::size_t> missing;
  const auto pick = [&](std::size_t i) {
    auto found = held_.extract(key_of(assignments[i]));
    results[i] = std::move(found.mapped());
    arrived(*results[i].trajectory);
  };
  for (std::size_t i = 0; i < assignments.size(); ++i)
    holds(assignments[i]) ? pick(i) : void(missing.emplace(key_of(assignments[i]), i));
  Clock::time_point asked;
  while (!missing.empty()) {
    for (const Key& key : take(kWait)) {
      const auto found = missing.extract(key);
      if (!found.empty()) pick(found.mapped());
    }
    const auto now = Clock::now();
    if (!missing.empty() && now - asked < kWait) continue;
    asked = now;
    if (waiting() == Collecting::kOn) continue;
    finish(waiting);
    return {};
  }
  return results;
}

void Collector::finish(const std::function<Collecting()>& waiting) {
  finishing_ = true;
  server_.withdraw();
  while (server_.in_flight() > 0 && waiting() != Collecting::kLeave) take(kWait);
}

void Collector::close(std::int64_t step, Split split) {
  std::erase_if(held_, [&](const auto& entry) {
    const Assignment& a = entry.second.trajectory->assignment;
    return place_of(a.step, a.split) <= place_of(step, split);
  });
  first_open_row_ = journal_.rows();
  for (const auto& [key, open] : held_) first_open_row_ = std::min(first_open_row_, open.row);
}

}  // namespace rollcall
