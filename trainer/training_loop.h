// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "model/engine.h"
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
  BaselineOnly baseline_only;
  AlarmOptions alarms;
  CheckpointOptions checkpoint;
  EvalOptions eval;
  std::chrono::milliseconds stop_grace{0};  // for rollouts in flight, once the run shall stop
  std::chrono::milliseconds learner_timeout{600000};  // silence that ends a learner's wait
  std::optional<EngineOptions> lead_engine;           // samples for the workers; nothing: they do
  std::int64_t max_lag = 0;         // steps whose rollouts are made ahead; 0: synchronous
  std::int64_t train_tasks = 0;     // rows of data.train
  std::int64_t valid_tasks = 0;     // rows of data.valid; 0: no evaluation
  std::int64_t canary_tasks = 0;    // rows of data.canaries
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

}  // namespace rollcall
