// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "comms/endpoint_status.h"
#include "comms/memory_mailbox.h"
#include "comms/trajectory.h"

namespace rollcall {

// A rollout as workers make them: 1,500 tokens, of which half are sampled, three tool calls, a
// grade. The reward follows from the assignment.
Trajectory scripted_trajectory(const Assignment&, int worker);

// What a worker's heartbeat tells of two tools and a grader.
std::vector<EndpointStatus> scripted_endpoints();

// Ranks 1..workers behind a post, played by one thread: they say hello, answer every assignment at
// once, and send a heartbeat every `heartbeat_every` (0: never), spread over that time.
class ScriptedWorkers {
 public:
  ScriptedWorkers(MemoryPost&, int workers, std::chrono::milliseconds heartbeat_every);
  ~ScriptedWorkers();
  ScriptedWorkers(const ScriptedWorkers&) = delete;
  ScriptedWorkers& operator=(const ScriptedWorkers&) = delete;

  double cpu_seconds();  // of the thread that plays them
  // From now on they answer one at a time with this pause between; 0: as fast as they can.
  void pace(std::chrono::microseconds pause) { pause_ = pause; }

 private:
  void play();
  void answer(const std::vector<Letter>& letters);
  void beat();

  MemoryPost& post_;
  const int workers_;
  const std::chrono::milliseconds heartbeat_every_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::int64_t beats_ = 0;
  std::atomic<std::chrono::microseconds> pause_{};
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace rollcall
