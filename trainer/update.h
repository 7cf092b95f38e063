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
#include "trainer/reference_policy.h"
#include "trainer/step_loss.h"
#include "trainer/step_plan.h"
#include "trainer/step_values.h"
#include "trainer/training_loop.h"
#include "trainer/value_learner.h"

namespace rollcall {

// How far one update of the policy may go.
struct StepSize {
  double factor = 1;           // of the learning rate
  double grad_norm_limit = 0;  // UpdateOptions::skip_above
};

struct CriticStats {
  ValueStats learner;  // means over the critic's updates in the step
  double explained_variance = 0, value_mean = 0, return_mean = 0;
};

struct StepUpdate {
  bool policy_learns = true;  // false: the critic alone; the policy's statistics mean nothing
  // Of several updates the means, tokens once, and both flags if any has them; `mismatch` and
  // `noise` are the first's, of weights that have not moved.
  UpdateStats learner;
  StepLoss::Stats loss;
  std::int64_t optimizer_steps = 0;  // of the policy
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

  // With algorithm.kl in the reward: its coefficient times the divergence from the reference policy
  // of each rollout (sequence_divergence()), 0 where there is no reward; else nothing.
  std::vector<double> penalties(std::span<const Collected>, const std::function<void()>& between);

  // One policy-gradient update from a step's trajectories, at learning_rate(step) * factor. With
  // a critic, which learns from them too, `batch` gets the advantages.
  StepUpdate update(std::span<const Collected>, StepBatch& batch, std::int64_t step,
                    const StepSize& size, const std::function<void()>& between);
  // Fills in weights and optimizer, which may change with the next update.
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
  // [N] of each batch, or empty.
  struct StepLogprobs {
    std::span<const at::Tensor> old, reference;
    StepLogprobs part(std::size_t begin, std::size_t count) const;
  };
  // First byte of what the lead announces.
  enum class Verb : char { kUpdate, kDiverge, kState, kRestore, kWait, kDismiss };

  void announce(std::string message);
  TrainState load(const std::filesystem::path& folder);
  void refuse_foreign(const TrainState&, const std::filesystem::path& folder) const;
  void announce(Verb, std::int64_t step, const StepSize& size, std::span<const LossRollout>);
  void take_part(std::string_view message);
  StepUpdate train(std::span<const LossRollout>, std::int64_t step, const StepSize& size,
                   const std::function<void()>& between);
  // Of each rollout; collective.
  std::vector<double> divergences(std::span<const LossRollout>,
                                  const std::function<void()>& between);
  bool policy_learns(std::int64_t step) const;
  UpdateOptions update_options(std::int64_t step, const StepSize& size) const;
  ValueUpdateOptions value_options(std::int64_t step) const;
  // Minibatches are the critic's where it has a trunk of its own, else the policy's.
  Minibatches pack(std::span<const TrainSequence> mine, std::int64_t prompts) const;
  void train_policy(const Minibatches&, const ValueTargets&, std::int64_t step,
                    const StepSize& size, bool on_policy, const std::function<void()>& between,
                    StepUpdate&);
  // One optimizer step, of which `share` goes into the step's means.
  void update_policy(std::span<const PackedBatch>, const StepLogprobs&, const UpdateOptions&,
                     double share, const std::function<void()>& between, const Learner::Pull&,
                     StepUpdate&);
  ValueStats train_critic(const Minibatches&, const ValueTargets&, std::int64_t step,
                          const std::function<void()>& between);

  const TrainSetup& setup_;
  Communicator& communicator_;
  Clock::time_point announced_ = Clock::now();
  std::string model_config_;  // config.json, kept in checkpoints
  Learner learner_;
  std::unique_ptr<ValueLearner> critic_;        // none: advantages are group-relative
  std::unique_ptr<ReferencePolicy> reference_;  // none: algorithm.kl.coefficient is 0
};

}  // namespace rollcall
