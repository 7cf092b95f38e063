// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <utility>

namespace rollcall {

// What is believed of each task's success rate p: a Beta posterior of its own rollouts, whose
// counts fade with every update of the policy, on top of the rate of all recent rollouts. A task
// that was not tried for long is thus believed to be as the others. Rewards are scaled to [0, 1]; a
// part of a success counts in part.
class TaskBeliefs {
 public:
  struct Counts {
    double successes = 0, failures = 0;
    std::int64_t update = 0;  // when they were last changed
  };
  struct State {
    std::map<std::int64_t, Counts> tasks;
    Counts recent{1, 3, 0};  // of all tasks; begins at 1 in 4
    std::int64_t updates = 0;
  };

  void add(std::int64_t task, double successes, double failures);
  void update();  // the policy has changed

  // Expected p (1 - p): the signal mass that a rollout of the task is expected to add. 0 to 0.25.
  double signal(std::int64_t task) const;
  double rate(std::int64_t task) const;  // expected p

  const State& state() const { return state_; }
  void restore(State state) { state_ = std::move(state); }

 private:
  Counts posterior(std::int64_t task) const;

  State state_;
};

}  // namespace rollcall
