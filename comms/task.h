// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace rollcall {

// One dataset row (JSONL, OpenAI RFT form: messages, optional tools, any further keys).
struct Task {
  std::int64_t row = 0;  // from 0, counted over non-empty lines
  std::string item;      // the whole row as JSON text, sent to tools and grader as `item`
  std::string messages;  // JSON array, the last message from the user
  std::string tools;  // JSON array of {"type":"function","function":{..}}; "[]" if the row has none
};

// Reads every row of a dataset. Throws an input Error "FILE:LINE: ..." naming each bad row (at most
// ten): not JSON, not an object, messages missing or empty or not ending with a user message, a
// message without role or content, tools that are not functions with a name.
std::vector<Task> read_tasks(const std::filesystem::path& file);

}  // namespace rollcall
