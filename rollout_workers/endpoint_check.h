// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <span>
#include <string>

#include "rollout_workers/rollout_options.h"

namespace rollcall {

// Connects once to every distinct host and port of the tools and the grader, trying again until
// `patience` is over; nothing is sent. Throws Error (kNoEndpoint) that names the tool, its URL and
// the reason.
void wait_for_endpoints(std::span<const ToolOptions> tools, const GraderOptions& grader,
                        std::chrono::milliseconds patience);

}  // namespace rollcall
