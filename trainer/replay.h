// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "model/model_spec.h"
#include "trainer/replay_comparison.h"
#include "trainer/run_period.h"
#include "trainer/training_loop.h"

namespace rollcall {

class Communicator;

// One update, made again.
struct ReplayedStep {
  std::int64_t step = 0;  // the update from policy version `step` to the next
  std::int64_t rollouts = 0, groups = 0, groups_signal = 0;
  double loss = 0, grad_norm_l2 = 0;   // NaN where the policy did not learn
  std::int64_t uses = 0, numbers = 0;  // compared with the journal; with metrics.jsonl
  std::string weights;                 // what they were compared with; empty: nothing is there
  std::vector<ReplayDifference> differences;
};

struct Replay {
  std::string from;                // where it began: a checkpoint or the initial model
  std::vector<std::string> notes;  // what is not as it was when the run began
  std::vector<ReplayedStep> steps;
  bool identical() const;
};

// Makes the updates after the newest checkpoint at or before `step` again, that of `step` included,
// from the rollouts in the journal, and compares what it can. Reads the run's folder and the model,
// and writes nothing. Stops at the first update that differs. Collective: the other learners
// run_following_learner(). `done` is called after each update. Throws an input Error if the journal
// has no such step, or lacks rows of it, or the weights the run began with are needed and are not
// those at model.path. What else the setup has is of `step`. Several learners replay steps of one
// period only, and a reference policy (algorithm.kl) is there for all steps or for none.
Replay replay_steps(const TrainSetup&, std::span<const RunPeriod> periods, const ModelSpec&,
                    Communicator&, std::int64_t step,
                    const std::function<void(const ReplayedStep&)>& done);

}  // namespace rollcall
