// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "trainer/collector.h"

namespace rollcall {

// How a tool or the grader ("grader") answered the rollouts.
struct EndpointUse {
  std::string name;
  std::int64_t calls = 0;   // that were answered
  std::int64_t errors = 0;  // of them, with an error that the policy was shown
  std::int64_t retries = 0;
  double seconds_p50 = 0, seconds_p95 = 0;  // from the first send to the accepted reply
};
std::vector<EndpointUse> endpoint_uses(std::span<const Collected>);

// Rollouts left out by each reason, masked ones too.
std::map<std::string, std::int64_t> left_out_by_reason(std::span<const Collected>);

}  // namespace rollcall
