// SPDX-License-Identifier: Apache-2.0
// A model's turn: calls with readable arguments, or one error within the text, never both.
#include <nlohmann/json.hpp>

#include "model/tool_call_parser.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  const std::string_view text = text_of(data, size);
  for (const auto syntax : {ToolCallSyntax::kHermes, ToolCallSyntax::kLlama3Json}) {
    const ParsedTurn turn = parse_tool_calls(syntax, text);
    if (turn.error && (!turn.calls.empty() || turn.error->offset > size)) __builtin_trap();
    for (const ToolCall& call : turn.calls)
      if (!nlohmann::json::parse(call.arguments).is_object()) __builtin_trap();
  }
  return 0;
}
