// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "trainer/packing.h"

namespace rollcall {

class ChatFormat;

// A whole conversation in the ids the policy would have seen and sampled.
struct Demonstration {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> is_action;  // 1 on assistant tokens, stop token included
  std::int64_t prompt_length = 0;
};

// Renders one dataset row: `messages` with at least one assistant turn (tool calls in OpenAI form)
// and its tool results, optional `tools`. Throws an input Error that says what the row lacks.
Demonstration render_demonstration(std::string_view row, const ChatFormat&);

// Reads a JSONL file of such rows; errors name file and line.
std::vector<Demonstration> read_demonstrations(const std::filesystem::path& file,
                                               const ChatFormat&);

}  // namespace rollcall
