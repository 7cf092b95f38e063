// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <span>
#include <string>
#include <vector>

#include "rollout_workers/rollout_options.h"

namespace rollcall {

// Connects once to every distinct host and port of the tools and the grader, trying again until
// `patience` is over; nothing is sent. Throws Error (kNoEndpoint) that names the tool, its URL and
// the reason.
void wait_for_endpoints(std::span<const ToolOptions> tools, const GraderOptions& grader,
                        std::chrono::milliseconds patience);

// An address that runs talk to.
struct EndpointAddress {
  std::string what;  // "tool 'NAME'", "the grader" or "the second grader": the first that has it
  std::string url;
};

// Every distinct host and port of the tools and the graders.
std::vector<EndpointAddress> distinct_endpoints(std::span<const ToolOptions> tools,
                                                const GraderOptions& grader);

// Connects once; waits a second for each address that the name has. Empty, or the reason why not.
std::string try_endpoint(const std::string& url);

// Whether the URL names the host that it is used on: 127.0.0.1 and the like.
bool is_loopback(const std::string& url);

}  // namespace rollcall
