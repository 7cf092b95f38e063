// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "comms/task.h"
#include "comms/trajectory.h"
#include "model/chat_format.h"
#include "model/engine.h"
#include "model/model_spec.h"
#include "rollout_workers/rollout_options.h"

namespace rollcall {

class RolloutClient;

// What a worker needs besides its link.
struct WorkerSetup {
  std::filesystem::path model_dir;  // config, tokenizer and chat template
  std::vector<ToolOptions> tools;
  GraderOptions grader;
  RolloutOptions rollout;
  ChatOptions chat;
  std::vector<Task> train, valid, canaries;

  const std::vector<Task>& tasks(Split split) const {
    return split == Split::kTrain ? train : split == Split::kValid ? valid : canaries;
  }

  std::string job_id;  // X-Rft-Job-Id
  int rank = 0;
  EngineOptions engine;
  bool lead_samples = false;  // the lead learner does; there is no policy here
  // Whether a rollout may be of a newer version than its assignment's, and when such are taken up.
  enum class NewerWeights {
    kNever,     // each rollout is of its assignment's
    kInFlight,  // at once, by rollouts under way too
    kDrained,   // once no rollout is under way, and none begins before
  };
  NewerWeights newer_weights = NewerWeights::kNever;
  bool loads_model = false;  // weights come from model_dir instead of the link, for any version
  std::filesystem::path adapter;  // PEFT directory merged into the model so loaded; empty: none
};

// Runs rollouts until the learner says goodbye or has been silent too long. Everything but HTTP
// happens on the calling thread.
void run_worker(const WorkerSetup&, RolloutClient&);

}  // namespace rollcall
