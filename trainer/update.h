// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <span>

#include "trainer/checkpoint.h"
#include "trainer/learner.h"
#include "trainer/step_loss.h"
#include "trainer/step_plan.h"
#include "trainer/training_loop.h"

namespace rollcall {

struct StepUpdate {
  UpdateStats learner;
  StepLoss::Stats loss;
};

// The learners' joint work. The lead calls the verbs; each is announced to the other learners, who
// run follow() and take their part in the same order. Single thread.
class Updater {
 public:
  Updater(const TrainSetup&, const ModelSpec&, Communicator&);

  const TrainedPolicy& policy() const { return learner_.policy(); }
  double learning_rate(std::int64_t step) const;

  // One policy-gradient update from a step's trajectories, at learning_rate(step) * step_size.
  StepUpdate update(std::span<const Collected>, const StepBatch&, std::int64_t step,
                    double step_size, const std::function<void()>& between);
  // Fills in weights and optimizer and writes the checkpoint; returns its folder.
  std::filesystem::path save(const std::filesystem::path& dir, TrainState state, int keep);
  // Everyone loads the checkpoint; returns what it says.
  TrainState restore(const std::filesystem::path& folder);
  // While the lead does what the others have no part in: to be called more often than
  // cluster.learner_timeout, or they give it up.
  void keep_waiting();
  void dismiss();  // ends follow() on the others

  void follow();

 private:
  using Clock = std::chrono::steady_clock;

  void announce(std::string message);
  TrainState load(const std::filesystem::path& folder);
  void refuse_foreign(const TrainState&, const std::filesystem::path& folder) const;
  StepUpdate train(std::span<const Trajectory* const>, std::span<const double> advantages,
                   std::span<const std::int64_t> prompts, std::int64_t step, double step_size,
                   const std::function<void()>& between);
  StepUpdate train_announced(std::string_view message);

  const TrainSetup& setup_;
  Communicator& communicator_;
  Clock::time_point announced_ = Clock::now();
  std::string model_config_;  // config.json, kept in checkpoints
  Learner learner_;
};

}  // namespace rollcall
