// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comms/task.h"
#include "comms/trajectory.h"
#include "rollout_workers/environment.h"
#include "rollout_workers/trace.h"

namespace rollcall {

// What one tool call came to.
struct ToolOutcome {
  ToolEvent event;
  bool done = false;  // the server ended the episode
  std::vector<std::pair<std::string, double>> metrics;
  std::string fault;           // not empty: the infrastructure failed, the event has no output
  bool misconfigured = false;  // of the fault: a new attempt would meet it again
};

// The body of a tool request, and with it the wire format of `id` and `call_id`.
std::string tool_request_body(const ToolEvent& call, std::string_view trace_id,
                              std::string_view item);

// Sends outcome.event's call (call_id, name, arguments) to its endpoint and fills in the rest. The
// fault holds no secrets. All references must outlive the coroutine.
asio::awaitable<void> call_tool(Environment::Impl&, ToolEndpoint&, Trace&, const Task&,
                                ToolOutcome& outcome);

}  // namespace rollcall
