// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace rollcall {

// One dataset row (JSONL, OpenAI RFT form: messages, optional tools, any further keys).
struct Task {
  std::int64_t row = 0;  // from 0, counted over non-empty lines
  std::string item;      // the whole row as JSON text, sent to tools and grader as `item`
  std::string messages;  // JSON array, the last message from the user
  std::string tools;  // JSON array of {"type":"function","function":{..}}; "[]" if the row has none
  std::int64_t line = 0;  // of the file, from 1
};

// Reads every row of a dataset. Throws an input Error "FILE:LINE: ..." naming each bad row (at most
// ten): not JSON, not an object, messages missing or empty or not ending with a user message, a
// message without role or content, tools that are not functions with a name.
std::vector<Task> read_tasks(const std::filesystem::path& file);

// How many rows a dataset has and what stands in them, without looking into any. Blank lines and
// blanks around a row do not count.
struct DatasetSummary {
  std::int64_t rows = 0;
  std::uint64_t xxh3 = 0;  // 0 if there are no rows
};
DatasetSummary summarize_dataset(const std::filesystem::path& file);

// "FILE:LINE: ..." of the first ten bad rows of a dataset, and how many more there are.
class RowComplaints {
 public:
  explicit RowComplaints(std::string file) : file_(std::move(file)) {}
  void add(std::int64_t line, const std::string& what);
  void throw_if_any(const std::string& what_to_do) const;  // an input Error

 private:
  std::string file_;
  std::string text_;
  std::size_t count_ = 0;
};

}  // namespace rollcall
