// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace rollcall {

// `cluster:` of a run file.
struct ClusterOptions {
  int learners = 1;             // >= 1; ranks 0..learners-1
  int workers = 2;              // >= 1; the ranks after them
  int rollouts_per_worker = 64; // credit: assignments a worker holds at once, >= 1
  std::chrono::milliseconds heartbeat_every{1000};
  std::chrono::milliseconds worker_timeout{30000};  // silence after which a worker counts as dead
};

}  // namespace rollcall
