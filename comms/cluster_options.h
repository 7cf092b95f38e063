// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

namespace rollcall {

// `cluster:` of a run file.
struct ClusterOptions {
  int learners = 1;              // >= 1; ranks 0..learners-1
  int workers = 2;               // >= 1; the ranks after them
  int rollouts_per_worker = 64;  // credit: assignments a worker holds at once, >= 1
  std::chrono::milliseconds heartbeat_every{1000};
  std::chrono::milliseconds worker_timeout{30000};  // silence after which a worker counts as dead
  // Silence of a learner after which the others give the run up; workers wait half as long again.
  std::chrono::milliseconds learner_timeout{600000};
  // In a Slurm job: how long before its end the run stops; 0: it does not look at the clock.
  std::chrono::milliseconds stop_before{180000};
  // How long a run that stops waits for the rollouts that are in flight.
  std::chrono::milliseconds stop_grace{30000};
  // How weights reach the workers: "shm" (all on the lead learner's host), "mpi" (all by messages)
  // or "auto" (shared memory where the host is the same, messages elsewhere).
  std::string weights_via = "auto";
};

}  // namespace rollcall
