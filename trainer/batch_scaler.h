// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "trainer/task_beliefs.h"
#include "trainer/task_pool.h"
#include "trainer/train_options.h"

namespace rollcall {

// Rewards of a group's valid rollouts.
struct GroupOutcome {
  std::int64_t task = 0;
  std::vector<double> rewards;
};

// The signal of a step: sum over groups of G / (G - 1) times the sum of (r - mean)^2. For rewards 0
// and 1 this is the signal mass of counting.h, unbiased for the sum of G p (1 - p).
double signal_mass(std::span<const GroupOutcome>);

// Of the tasks that were tried: those that are drawn less than half as often as others, because
// they are believed to be failed (deferred) or passed (retired) almost always. None is given up:
// one draw in 20 remains, and what is believed of a task fades until it is drawn like the others
// again.
struct TaskCounts {
  std::int64_t tried = 0, deferred = 0, retired = 0;
};

// Decides what a step samples: tasks, group size, and how many rounds. A step asks for rounds until
// there are no more, and reports each; rounds depend on nothing but the options, the seed and
// what was reported, so that decisions can be made again from the journal. A rule that looks at
// rewards alone leaves the direction of each task's gradient as it is and changes only what it
// weighs (docs/algorithms.md, "How many rollouts"). A value: copy it to come back to a step's
// begin.
class BatchScaler {
 public:
  BatchScaler(const BatchOptions&, std::int64_t tasks, std::uint64_t seed);

  // Between steps: one that goes on from here by other options, as a resume with them does.
  BatchScaler with(const BatchOptions&) const;

  struct Round {
    std::int64_t first_group = 0;     // of the run's groups, numbered as they are planned
    std::vector<std::int64_t> tasks;  // one group each; a task may stand in it twice
    std::int64_t group_size = 0;
    std::string reason;  // for a person
    std::int64_t rollouts() const { return static_cast<std::int64_t>(tasks.size()) * group_size; }
  };
  std::optional<Round> next_round();
  // Between steps: decides now what each of the next `steps` steps begins with.
  void plan_ahead(std::int64_t steps);
  const std::deque<Round>& ahead() const { return ahead_; }  // the first rounds so planned
  void observe(std::span<const GroupOutcome>);  // of the round, in the order of its tasks
  void end_step();

  // Whether a group of this size is believed to hold about one success at most, by the rewards of
  // earlier rounds: such a success stands against the whole group, and if it is a false one, so
  // does what it teaches. Never of small groups, in which no success weighs so much.
  bool rare_success(std::int64_t task, std::int64_t group_size) const;

  TaskCounts task_counts() const;
  // Of the step, as expected before any of its rewards was known: from its first round, and from
  // how many groups further rounds added lately.
  double expected_groups() const { return first_groups_ * growth_; }
  double signal() const { return mass_; }  // of the step so far
  std::int64_t rounds() const { return rounds_; }
  // For the learning rate: below 1 where the step ends with less than the signal that was wanted.
  double step_size() const;

  // Between steps. restore() throws Error if the text is none of state().
  std::string state() const;
  void restore(const std::string& state);

 private:
  Round first_round();
  Round fixed_round();
  std::optional<Round> further_round();
  std::optional<Round> top_up();
  Round numbered(Round);
  Round make_round(double rollouts, std::int64_t most, std::string reason);
  std::vector<std::int64_t> draw(std::int64_t count);
  double draw_chance(std::int64_t task) const;  // that it is taken when its turn comes
  double expected_signal() const;               // of one rollout

  BatchOptions options_;
  std::int64_t tasks_;
  std::uint64_t seed_;
  TaskPool pool_;
  TaskBeliefs beliefs_;
  std::deque<Round> ahead_;
  std::int64_t next_group_ = 0;
  double usual_signal_ = 0;                                   // of the tasks drawn lately
  double recent_mass_, recent_rollouts_;                      // of the steps before, fading
  double low_ = 0, high_ = 1;                                 // of all rewards
  std::int64_t planned_;                                      // rollouts of the step before
  double mass_ = 0;                                           // of the step
  std::int64_t rollouts_ = 0, rounds_ = 0, informative_ = 0;  // of the step
  double first_groups_ = 0, groups_ = 0;  // of the step: of its first round; of all
  double growth_ = 1;                     // of the latter over the former, lately
  std::int64_t steps_ = 0;
};

}  // namespace rollcall
