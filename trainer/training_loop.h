// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "model/model_spec.h"
#include "trainer/result.h"
#include "trainer/train_options.h"
#include "trainer/trained_policy.h"

namespace rollcall {

class Communicator;
class RolloutServer;

// What a run is made of, from its configuration.
struct TrainSetup {
  RunOptions run;
  BatchOptions batch;
  AlgorithmOptions algorithm;
  AlarmOptions alarms;
  CheckpointOptions checkpoint;
  EvalOptions eval;
  double pass_threshold = 1.0;      // score from which a rollout counts as passed
  std::int64_t train_tasks = 0;     // rows of data.train
  std::int64_t valid_tasks = 0;     // rows of data.valid; 0: no evaluation
  std::filesystem::path model_dir;  // the checkpoint trained from
  std::optional<LoraStart> lora;    // nothing: every weight is trained
  std::filesystem::path run_dir;    // runs/<name>
  std::string dtype = "float32";    // of the policy's weights, exported and published
  std::string effective_config;     // YAML, secrets as ${NAME}
  std::string about;                // JSON: versions, configuration, hashes of the inputs
  std::int64_t valid_ids = 0;       // ids the tokenizer has; logits beyond are padding
  bool live_progress = false;       // one line redrawn in place
};

// The lead learner: plans, collects, journals, updates, publishes, checkpoints, evaluates, exports,
// until run.steps are done or `stop_requested` says so; goes on from the newest checkpoint of
// run_dir. Throws Error; a stop on request is a result, not an error.
RunResult run_lead_learner(const TrainSetup&, const ModelSpec&, Communicator&, RolloutServer&,
                           const std::function<bool()>& stop_requested);

// Any other learner: computes its share of every update the lead announces, until the lead says
// goodbye.
void run_following_learner(const TrainSetup&, const ModelSpec&, Communicator&);

// Held-out evaluation of the policy in `model_dir` with no training: the pass rate of every task.
struct Evaluation {
  double pass_at_1 = 0;            // mean over tasks of the share of passed rollouts
  double low_95 = 0, high_95 = 0;  // normal approximation over tasks, clipped to [0, 1]
  std::int64_t tasks = 0, samples = 0, faults = 0;
  std::int64_t rollouts = 0;
};
// The workers load it themselves (WorkerSetup::loads_model); the server publishes nothing but its
// version.
Evaluation run_evaluation(const TrainSetup&, const ModelSpec&, RolloutServer&);

}  // namespace rollcall
