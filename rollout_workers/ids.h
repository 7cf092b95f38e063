// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "comms/trajectory.h"

namespace rollcall {

// "trace_" + a random UUID of version 4. From the system's entropy, never from a seed: a second
// attempt at the same assignment must not meet the first one's server state.
std::string make_trace_id();

// W3C trace context: the trace id's UUID as trace part and a random span part.
std::string make_traceparent(std::string_view trace_id);

// The same for every attempt at an assignment.
std::string rollout_id(const Assignment&);

}  // namespace rollcall
