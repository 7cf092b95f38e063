// SPDX-License-Identifier: Apache-2.0
#include "comms/dispatcher.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

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

int Dispatcher::least_loaded() const { return by_load_.empty() ? -1 : by_load_.begin()->second; }

void Dispatcher::change_load(int worker, std::size_t from, std::size_t to) {
  auto entry = by_load_.extract({from, worker});
  entry.value().first = to;
  by_load_.insert(std::move(entry));
  in_flight_ += static_cast<int>(to) - static_cast<int>(from);
}

void Dispatcher::submit(const Assignment& assignment) {
  auto place = queue_.end();
  while (place != queue_.begin() && std::prev(place)->assignment.step > assignment.step) --place;
  queue_.insert(place, {assignment, 0, false});
}

void Dispatcher::open(int worker) {
  if (held_.try_emplace(worker).second) by_load_.emplace(0, worker);
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
  std::vector<Entry>& held = held_.at(worker);
  held.push_back(queue_.front());
  queue_.pop_front();
  change_load(worker, held.size() - 1, held.size());
  return std::pair(worker, held.back().assignment);
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
  change_load(worker, found->second.size() + 1, found->second.size());
  leave_group(assignment);
  return true;
}

std::vector<Trajectory> Dispatcher::close(int worker) {
  std::vector<Trajectory> ended;
  const auto found = held_.find(worker);
  if (found == held_.end()) return ended;
  std::vector<Entry> lost = std::move(found->second);
  held_.erase(found);
  change_load(worker, lost.size(), 0);
  by_load_.erase({0, worker});
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

int Dispatcher::in_flight(int worker) const {
  const auto found = held_.find(worker);
  return found == held_.end() ? 0 : static_cast<int>(found->second.size());
}

}  // namespace rollcall
