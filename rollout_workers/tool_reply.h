// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rollcall {

// What a tool server said about one call.
struct ToolReply {
  std::string output;  // for the model
  bool done = false;   // the episode is over
  std::vector<std::pair<std::string, double>>
      metrics;  // "reward" and the server's `metrics`; not for the model
};

// Reads a reply to `call_id`; nullopt if it is not JSON of the protocol's shape or answers another
// call.
std::optional<ToolReply> read_tool_reply(std::string_view body, std::string_view call_id);

// The JSON text that the model is shown in place of an output.
std::string tool_error_text(std::string_view type, std::string_view message, int code = 0);

// True if the text is a JSON object.
bool is_json_object(std::string_view text);

}  // namespace rollcall
