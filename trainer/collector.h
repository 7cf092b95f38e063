// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "comms/trajectory.h"

namespace rollcall {

class Journal;
class JournalReader;
class RolloutServer;

// A trajectory and its journal row.
struct Collected {
  std::int64_t row = 0;
  std::shared_ptr<const Trajectory> trajectory;  // shared with the journal until it is written
  bool recovered = false;  // from the journal of an earlier life, not sampled now
};

// The same work, whichever attempt it is; the journal does not know how rare its success was.
bool same_work(Assignment, const Assignment&);

// What a collector shall do next: go on, finish what is in flight and start nothing, or leave.
enum class Collecting { kOn, kFinish, kLeave };

// Gets assignments done and journalled. What the journal already holds from before a crash is taken
// from there instead of being sampled again. Single thread.
class Collector {
 public:
  Collector(RolloutServer& server, Journal& journal) : server_(server), journal_(journal) {}

  // Offers rows [first_row, end_row) of a journal left by an earlier life of this run, but for
  // faults that no update rests on: the cause may be gone. To be called before the uses are
  // truncated. Returns how many it offers.
  std::size_t recover(const JournalReader&, std::int64_t first_row, std::int64_t end_row);

  // Sends out what is neither there nor under way.
  void start(std::span<const Assignment> assignments);

  // Starts every assignment and returns the results in the order given, whatever the order of
  // arrival. `arrived` is called with each, in that order; `waiting` several times a second: once
  // it has said something else than kOn the result is empty. Arrived trajectories are appended to
  // the journal, not committed.
  std::vector<Collected> collect(std::span<const Assignment> assignments,
                                 const std::function<void(const Trajectory&)>& arrived,
                                 const std::function<Collecting()>& waiting);

  // Takes what has arrived of what was started, without waiting. To be called between collect()s
  // too: it keeps the links to the workers alive.
  void absorb() { take({}); }

  // Sends out nothing more, and takes what still arrives until nothing is under way or `waiting`
  // says kLeave.
  void finish(const std::function<Collecting()>& waiting);

  // Nothing more will be asked for of this step, or of an evaluation before its rollouts.
  void close(std::int64_t step, Split);

  // The journal row from which recover() finds everything that later collect()s may ask for.
  std::int64_t first_open_row() const { return first_open_row_; }

 private:
  using Key = std::tuple<std::int64_t, std::int32_t>;  // group, member
  static Key key_of(const Assignment&);
  bool holds(const Assignment&) const;
  std::vector<Key> take(std::chrono::milliseconds wait);  // what arrived is held

  RolloutServer& server_;
  Journal& journal_;
  std::set<Key> under_way_;
  std::map<Key, Collected> held_;  // arrived or recovered, not asked for yet
  bool finishing_ = false;
  std::int64_t first_open_row_ = 0;
};

}  // namespace rollcall
