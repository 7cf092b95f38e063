// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>

#include "comms/backoff.h"
#include "comms/rollout_link.h"
#include "tests/mpi/mpi_test.h"

namespace rollcall {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr int kSlowness = 4;  // what a sanitizer costs
#else
inline constexpr int kSlowness = 1;
#endif

// Timeouts small enough for a test, large enough for a busy machine.
inline ClusterOptions test_options(const World& world, const std::string& weights_via = "auto") {
  ClusterOptions options;
  options.learners = 1;
  options.workers = world.size() - 1;
  options.rollouts_per_worker = 8;
  options.heartbeat_every = std::chrono::milliseconds(50);
  options.worker_timeout = kSlowness * std::chrono::milliseconds(1500);
  options.learner_timeout = std::chrono::minutes(1);
  options.weights_via = weights_via;
  return options;
}

inline Trajectory echo(const World& world, const Assignment& assignment) {
  Trajectory trajectory;
  trajectory.assignment = assignment;
  trajectory.end = EndReason::kFinished;
  trajectory.worker = world.rank();
  return trajectory;
}

// Serves until it shall leave. `attend` gets every inbox.
inline void serve(RolloutClient& client,
                  const std::function<void(const RolloutClient::Inbox&)>& attend) {
  Backoff backoff;
  for (;;) {
    const RolloutClient::Inbox inbox = client.poll();
    attend(inbox);
    if (inbox.leave) break;
    if (inbox.assignments.empty()) {
      backoff.wait();
    } else {
      backoff.reset();
    }
  }
  while (!client.idle()) {
    client.poll();
    backoff.wait();
  }
}

// Polls until nothing is queued or in flight.
inline std::vector<Trajectory> collect_all(RolloutServer& server) {
  std::vector<Trajectory> all;
  while (server.queued() + server.in_flight() > 0) {
    std::ranges::move(server.poll_for(std::chrono::milliseconds(10)), std::back_inserter(all));
  }
  return all;
}

// True if every one of `count` groups was delivered exactly once, by a worker.
inline bool each_delivered_once(const std::vector<Trajectory>& all, std::int64_t count) {
  std::vector<int> deliveries(count);
  for (const Trajectory& trajectory : all) {
    if (trajectory.fault != FaultReason::kNone) return false;
    ++deliveries.at(trajectory.assignment.group);
  }
  return std::ranges::all_of(deliveries, [](int times) { return times == 1; });
}

}  // namespace rollcall
