// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comms/endpoint_status.h"
#include "comms/task.h"
#include "comms/trajectory.h"
#include "model/chat_format.h"
#include "model/tokenizer.h"
#include "rollout_workers/policy.h"
#include "rollout_workers/rollout_options.h"

namespace rollcall {

class HttpClient;

// Where a run's rollouts act: its tools and its grader, with their concurrency caps. Shared by all
// rollouts of a worker, and outlives them. Single thread.
class Environment {
 public:
  // `job_id` goes out as X-Rft-Job-Id. The client must outlive the environment.
  Environment(HttpClient&, std::vector<ToolOptions>, GraderOptions, std::string job_id,
              BackoffOptions = {});
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  // Whether new rollouts had better wait: an endpoint is stopped, or has more calls than it takes.
  bool congested() const;
  // Of the endpoints that ever needed a retry or were stopped.
  std::vector<EndpointStatus> endpoints() const;

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// What a rollout works with. All of it outlives the rollout.
struct RolloutContext {
  Policy& policy;
  Environment& environment;
  const ChatFormat& format;
  const Tokenizer& tokenizer;
  const RolloutOptions& options;
};

// One rollout: sample a turn, run its tool calls, feed back the results, until the policy answers
// or a budget ends it; then grade. Faults are retried (delivery.h) and, after that, run as
// new attempts with a new trace_id (max_attempts in all). Never throws for what the policy, a
// server or the network does: the trajectory says how it ended. A faulted trajectory keeps its
// transcript and has no grade. Cancelled (asio::bind_cancellation_slot), it returns what it has
// with FaultReason::kCancelled. The task must outlive it.
asio::awaitable<Trajectory> run_rollout(Assignment, const Task&, RolloutContext);

}  // namespace rollcall
