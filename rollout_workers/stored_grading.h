// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comms/task.h"
#include "comms/trajectory.h"
#include "model/chat_format.h"
#include "model/tokenizer.h"
#include "rollout_workers/rollout_options.h"
#include "rollout_workers/transcript.h"

namespace rollcall {

// The model's turns of a stored rollout as text, from the tokens that it sampled.
struct StoredTurns {
  std::vector<TurnText> turns;
  std::string problem;  // not empty: the tokens do not say what the stored texts and calls say
};
StoredTurns stored_turns(const Trajectory&, const Tokenizer&, const ChatFormat&);

struct StoredGradingSetup {
  std::filesystem::path model_dir;  // tokenizer and chat template
  ChatOptions chat;
  GraderOptions grader;
  RolloutOptions rollout;  // what limits, void turns and budgets make of a grade
  std::string job_id;      // X-Rft-Job-Id
  std::string name;        // of this grading: part of its Idempotency-Keys
};

// A rollout that a journal holds, and its row of the dataset.
struct StoredRollout {
  Trajectory trajectory;
  const Task* task = nullptr;
};

// Grades rollouts that ended long ago by what would have been their grading request then: the same
// body under the same trace_id, retries and circuit breaker as in a run. Single thread.
class StoredGrader {
 public:
  explicit StoredGrader(const StoredGradingSetup&);  // which must outlive it
  ~StoredGrader();
  StoredGrader(const StoredGrader&) = delete;
  StoredGrader& operator=(const StoredGrader&) = delete;

  // Grades all that `next` gives until it gives none, as many at once as the grader takes, and
  // hands each back with its new grade, fault and fault_detail; what was graded twice then is
  // graded twice again. A rollout that cannot be rebuilt has FaultReason::kGraderFault and why.
  // Throws Error (kNoEndpoint) once the grader is given up.
  using Next = std::function<std::optional<StoredRollout>()>;
  using Done = std::function<void(Trajectory)>;
  void grade(const Next& next, const Done& done);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rollcall
