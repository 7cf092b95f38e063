// SPDX-License-Identifier: Apache-2.0
#include "comms/dispatcher.h"

#include <algorithm>
#include <string>

namespace rollcall {
namespace {

Trajectory given_up(const Assignment& assignment, int worker, FaultReason fault,
                    std::string detail) {
  Trajectory trajectory;
  trajectory.assignment = assignment;
  trajectory.fault = fault;
  trajectory.fault_detail = std::move(detail);
  trajectory.worker = worker;
  return trajectory;
}

// A worker repeats an attempt that met a fault, so what it delivers may be of a later one.
bool fulfils(Assignment delivered, const Assignment& held) {
  if (delivered.attempt < held.attempt) return false;
  delivered.attempt = held.attempt;
  return delivered == held;
}

}  // namespace

bool Dispatcher::has_credit(int worker) const {
  const auto found = held_.find(worker);
  return found != held_.end() && static_cast<int>(found->second.size()) < credit_;
}

int Dispatcher::least_loaded() const {
  const auto least =
      std::ranges::min_element(held_, {}, [](const auto& entry) { return entry.second.size(); });
  return least == held_.end() ? -1 : least->first;
}

std::optional<std::pair<int, Assignment>> Dispatcher::next() {
  if (queue_.empty()) return std::nullopt;
  const Assignment& assignment = queue_.front().assignment;
  const auto group = groups_.find(assignment.group);
  int worker = group == groups_.end() ? -1 : group->second.worker;
  if (!has_credit(worker)) worker = least_loaded();
  if (!has_credit(worker)) return std::nullopt;
  GroupPlace& place = groups_[assignment.group];
  place.worker = worker;
  ++place.members;
  held_[worker].push_back(queue_.front());
  queue_.pop_front();
  return std::pair(worker, held_[worker].back().assignment);
}

void Dispatcher::leave_group(const Assignment& assignment) {
  const auto group = groups_.find(assignment.group);
  if (--group->second.members == 0) groups_.erase(group);
}

bool Dispatcher::accept(int worker, const Assignment& assignment) {
  const auto found = held_.find(worker);
  if (found == held_.end()) return false;
  const auto entry = std::ranges::find_if(
      found->second, [&](const Entry& held) { return fulfils(assignment, held.assignment); });
  if (entry == found->second.end()) return false;
  found->second.erase(entry);
  leave_group(assignment);
  return true;
}

std::vector<Trajectory> Dispatcher::close(int worker) {
  std::vector<Trajectory> ended;
  const auto found = held_.find(worker);
  if (found == held_.end()) return ended;
  std::vector<Entry> lost = std::move(found->second);
  held_.erase(found);
  // Backwards, so that the front of the queue keeps the order of submission.
  for (auto entry = lost.rbegin(); entry != lost.rend(); ++entry) {
    leave_group(entry->assignment);
    if (entry->cancelled) {
      ended.push_back(given_up(entry->assignment, worker, FaultReason::kCancelled, "cancelled"));
    } else if (++entry->losses >= max_losses_) {
      ended.push_back(given_up(entry->assignment, worker, FaultReason::kWorkerLost,
                               "lost with its worker " + std::to_string(entry->losses) + " times"));
    } else {
      ++entry->assignment.attempt;
      queue_.push_front(*entry);
    }
  }
  return ended;
}

void Dispatcher::cancel_all() {
  queue_.clear();
  for (auto& [worker, entries] : held_) {
    for (Entry& entry : entries) entry.cancelled = true;
  }
}

int Dispatcher::in_flight() const {
  std::size_t sum = 0;
  for (const auto& [worker, entries] : held_) sum += entries.size();
  return static_cast<int>(sum);
}

int Dispatcher::in_flight(int worker) const {
  const auto found = held_.find(worker);
  return found == held_.end() ? 0 : static_cast<int>(found->second.size());
}

}  // namespace rollcall
