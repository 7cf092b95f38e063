// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "model/chat_format.h"

namespace rollcall {

// How a model writes its tool calls.
enum class ToolCallSyntax : std::uint8_t {
  kHermes,      // <tool_call>{"name": .., "arguments": {..}}</tool_call>, any number
  kLlama3Json,  // the whole turn is {"name": .., "parameters" or "arguments": {..}}
};

// Reads one model turn without its stop token. Never throws for what a model wrote.
ParsedTurn parse_tool_calls(ToolCallSyntax syntax, std::string_view turn_text);

}  // namespace rollcall
