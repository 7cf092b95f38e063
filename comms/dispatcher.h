// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "comms/trajectory.h"

namespace rollcall {

// Decides which worker gets which assignment, and knows who holds what. No messages here.
// Single thread.
class Dispatcher {
 public:
  // `credit`: assignments a worker may hold. `max_losses`: lost workers after which an assignment
  // is given up.
  Dispatcher(int credit, int max_losses) : credit_(credit), max_losses_(max_losses) {}

  // Behind what was submitted of the same step or an earlier one.
  void submit(const Assignment& assignment);

  // From now on the worker may be given assignments.
  void open(int worker);

  // The next assignment and its worker, if there is one and a worker has credit left. A group stays
  // with the worker that holds its other members while that one has credit, else goes to the worker
  // that holds the least.
  std::optional<std::pair<int, Assignment>> next();

  // Takes an assignment off a worker, fulfilled by the attempt it was given or a later one. False
  // if the worker does not hold it: stale or duplicate.
  bool accept(int worker, const Assignment&);

  // Takes a worker out. What it held goes to the front of the queue with attempt+1; returned are
  // those that were lost too often (kWorkerLost) or were cancelled before (kCancelled).
  std::vector<Trajectory> close(int worker);

  // Empties the queue and marks what workers hold.
  void cancel_all();

  int queued() const { return static_cast<int>(queue_.size()); }
  int in_flight() const { return in_flight_; }
  int in_flight(int worker) const;

 private:
  struct Entry {
    Assignment assignment;
    int losses = 0;
    bool cancelled = false;
  };
  struct GroupPlace {
    int worker = -1;
    int members = 0;  // in flight, on any worker
  };

  bool has_credit(int worker) const;
  int least_loaded() const;  // the lowest rank of those; -1: no worker is open
  void change_load(int worker, std::size_t from, std::size_t to);
  void leave_group(const Assignment&);

  int credit_;
  int max_losses_;
  std::deque<Entry> queue_;
  std::map<int, std::vector<Entry>> held_;         // by open worker
  std::set<std::pair<std::size_t, int>> by_load_;  // how much each open worker holds, and who it is
  int in_flight_ = 0;
  std::map<std::int64_t, GroupPlace> groups_;  // those with members in flight
};

}  // namespace rollcall
