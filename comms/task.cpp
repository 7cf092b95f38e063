// SPDX-License-Identifier: Apache-2.0
#include "comms/task.h"

#include <xxhash.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

#include "comms/error.h"

namespace rollcall {
namespace {

// Key order is kept: chat templates print schemas in the order of the dataset.
using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 200;  // bounds the recursion of printing
constexpr std::size_t kMaxReported = 10;
constexpr std::string_view kBlank = " \t\r";

struct BadRow : std::runtime_error {
  using std::runtime_error::runtime_error;
};

std::string_view trim(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) + 1 - begin);
}

Json parse_row(std::string_view text) {
  const auto limit_depth = [](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) throw BadRow("nested deeper than " + std::to_string(kMaxDepth));
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), limit_depth);
  } catch (const Json::parse_error& error) {
    throw BadRow("not JSON (column " + std::to_string(error.byte) + ")");
  } catch (const Json::exception&) {
    throw BadRow("a number is out of range");
  }
}

bool has_content(const Json& message) {
  const auto content = message.find("content");
  if (content != message.end() && (content->is_string() || content->is_array())) return true;
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

void check_message(const Json& message, std::size_t index) {
  const std::string where = "messages[" + std::to_string(index) + "] ";
  if (!message.is_object()) throw BadRow(where + "is not an object");
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string() || role->get_ref<const std::string&>().empty()) {
    throw BadRow(where + "has no 'role'");
  }
  if (!has_content(message)) throw BadRow(where + "has no 'content' (text, or a list of parts)");
}

std::string checked_messages(const Json& row) {
  const auto messages = row.find("messages");
  if (messages == row.end()) throw BadRow("no 'messages'");
  if (!messages->is_array() || messages->empty()) {
    throw BadRow("'messages' is not a list of at least one message");
  }
  for (std::size_t i = 0; i < messages->size(); ++i) check_message((*messages)[i], i);
  if (messages->back()["role"] != "user") throw BadRow("the last message is not from 'user'");
  return messages->dump();
}

bool is_named_function(const Json& tool) {
  if (!tool.is_object() || tool.value("type", Json()) != "function") return false;
  const Json function = tool.value("function", Json());
  if (!function.is_object()) return false;
  const Json name = function.value("name", Json());
  return name.is_string() && !name.get_ref<const std::string&>().empty();
}

std::string checked_tools(const Json& row) {
  const auto tools = row.find("tools");
  if (tools == row.end() || tools->is_null()) return "[]";
  if (!tools->is_array()) throw BadRow("'tools' is not a list");
  for (std::size_t i = 0; i < tools->size(); ++i) {
    if (!is_named_function((*tools)[i])) {
      throw BadRow("tools[" + std::to_string(i) +
                   "] is not {\"type\": \"function\", \"function\": {\"name\": ...}}");
    }
  }
  return tools->dump();
}

Task read_task(std::int64_t row, std::string_view text) {
  const Json parsed = parse_row(text);
  if (!parsed.is_object()) throw BadRow("not a JSON object");
  return {row, std::string(text), checked_messages(parsed), checked_tools(parsed), 0};
}

// Calls `visit(line, text)` for every line that is not blank.
template <typename Visit>
void for_each_row(const std::filesystem::path& file, const Visit& visit) {
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    throw input_error("cannot read the dataset " + file.string(), "check data.train, data.valid");
  }
  std::string line;
  for (std::int64_t number = 1; std::getline(in, line); ++number) {
    std::string_view text = line;
    if (number == 1 && text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    text = trim(text);
    if (!text.empty()) visit(number, text);
  }
  if (in.bad()) throw input_error("reading the dataset " + file.string() + " failed");
}

}  // namespace

void RowComplaints::add(std::int64_t line, const std::string& what) {
  if (count_++ >= kMaxReported) return;
  if (!text_.empty()) text_ += '\n';
  text_ += file_ + ":" + std::to_string(line) + ": " + what;
}

void RowComplaints::throw_if_any(const std::string& what_to_do) const {
  if (count_ == 0) return;
  const std::string rest =
      count_ > kMaxReported ? "\n... and " + std::to_string(count_ - kMaxReported) + " more" : "";
  throw input_error(text_ + rest, what_to_do);
}

std::vector<Task> read_tasks(const std::filesystem::path& file) {
  std::vector<Task> tasks;
  RowComplaints complaints(file.string());
  std::int64_t row = 0;
  for_each_row(file, [&](std::int64_t line, std::string_view text) {
    try {
      tasks.push_back(read_task(row++, text));
      tasks.back().line = line;
    } catch (const BadRow& bad) {
      complaints.add(line, bad.what());
    }
  });
  complaints.throw_if_any(
      "each line of a dataset is one JSON object with 'messages' that end with a user message");
  if (tasks.empty()) {
    throw input_error("the dataset " + file.string() + " has no rows",
                      "give a file with one task a line");
  }
  return tasks;
}

DatasetSummary summarize_dataset(const std::filesystem::path& file) {
  DatasetSummary summary;
  for_each_row(file, [&](std::int64_t, std::string_view text) {
    ++summary.rows;
    summary.xxh3 = XXH3_64bits_withSeed(text.data(), text.size(), summary.xxh3);
  });
  return summary;
}

}  // namespace rollcall
