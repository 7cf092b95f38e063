// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "comms/task.h"
#include "comms/trajectory.h"

namespace rollcall {

// One model turn as text. Its calls are tool_events[first_event, first_event + events).
struct TurnText {
  std::string content;
  std::size_t first_event = 0;
  std::size_t events = 0;
};

// The body of a grading request: the rollout as a sample in the chat-completions and Responses
// shapes, and the task's row as it stands.
std::string grade_request_body(const Trajectory&, std::span<const TurnText> turns, const Task&);

}  // namespace rollcall
