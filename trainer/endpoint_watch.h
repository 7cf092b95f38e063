// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "comms/rollout_link.h"
#include "trainer/metrics.h"

namespace rollcall {

// What all workers together tell of tool servers and the grader. As old as their last heartbeats.
class EndpointWatch {
 public:
  // What changed since the last look, a line for each: an endpoint is waited for, or answers again.
  std::vector<std::string> look(std::span<const WorkerStatus>);

  // "waiting for grader at http://host:80/grade (Connection refused) since 42 s; 3 workers, 48
  // calls held": the endpoint that fails longest. Empty if all answer.
  std::string waiting() const;

  // Since the last call, summed over workers, of the endpoints that had any:
  // endpoint_seconds_waited.NAME, endpoint_openings.NAME, endpoint_retries.NAME.
  MetricList take_metrics();

 private:
  struct Total {
    std::string address, error;
    int workers = 0;  // that wait
    std::int64_t held = 0;
    double down_s = 0;
    double waited_s = 0;
    std::int64_t openings = 0, retries = 0;
  };

  std::map<std::string, Total> now_, taken_;  // by name
};

}  // namespace rollcall
