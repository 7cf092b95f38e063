// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "trainer/checkpoint.h"
#include "trainer/learner.h"
#include "trainer/step_loss.h"
#include "trainer/step_plan.h"
#include "trainer/step_values.h"
#include "trainer/training_loop.h"
#include "trainer/value_learner.h"

namespace rollcall {

struct CriticStats {
  ValueStats learner;  // means over the critic's updates in the step
  double explained_variance = 0, value_mean = 0, return_mean = 0;
};

struct StepUpdate {
  bool policy_learns = true;  // false: the critic alone; the policy's statistics mean nothing
  UpdateStats learner;
  StepLoss::Stats loss;
  std::optional<CriticStats> critic;
  std::vector<double> advantages;  // with a critic: of each rollout in the loss, mean over tokens
};

// The learners' joint work. The lead calls the verbs; each is announced to the other learners, who
// run follow() and take their part in the same order. Single thread.
class Updater {
 public:
  Updater(const TrainSetup&, const ModelSpec&, Communicator&);

  const TrainedPolicy& policy() const { return learner_.policy(); }
  double learning_rate(std::int64_t step) const;

  // One policy-gradient update from a step's trajectories, at learning_rate(step) * step_size. With
  // a critic, which learns from them too, `batch` gets the advantages.
  StepUpdate update(std::span<const Collected>, StepBatch& batch, std::int64_t step,
                    double step_size, const std::function<void()>& between);
  // Fills in weights and optimizer.
  TrainState state(TrainState);
  // The same, and writes the checkpoint; returns its folder.
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
  bool policy_learns(std::int64_t step) const;
  UpdateOptions update_options(std::int64_t step, double step_size) const;
  ValueUpdateOptions value_options(std::int64_t step) const;
  // Minibatches are the critic's on a trunk of its own; else there is one.
  Minibatches pack(std::span<const TrainSequence> mine,
                   std::span<const std::int64_t> prompts) const;
  void train_policy(std::span<const PackedBatch>, const ValueTargets&, std::int64_t step,
                    double step_size, const std::function<void()>& between, StepUpdate&);
  ValueStats train_critic(const Minibatches&, const ValueTargets&, std::int64_t step,
                          const std::function<void()>& between);

  const TrainSetup& setup_;
  Communicator& communicator_;
  Clock::time_point announced_ = Clock::now();
  std::string model_config_;  // config.json, kept in checkpoints
  Learner learner_;
  std::unique_ptr<ValueLearner> critic_;  // none: advantages are group-relative
};

}  // namespace rollcall
