// SPDX-License-Identifier: Apache-2.0
#include "rollcall/evaluation_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

namespace rollcall {
namespace {

using Settings = std::map<std::string, std::string>;  // by the run file's key
constexpr std::size_t kMostLines = 10;

Settings seen_by_policy(const RunConfig& config) {
  const RolloutOptions& rollout = config.rollout;
  Settings settings{
      {"model.chat.enable_thinking", config.model.chat.enable_thinking ? "true" : "false"},
      {"model.chat.date_string", config.model.chat.date_string},
      {"model.dtype", config.model.dtype},
      {"rollout.max_turns", std::to_string(rollout.max_turns)},
      {"rollout.max_tool_calls", std::to_string(rollout.max_tool_calls)},
      {"rollout.max_new_tokens", std::to_string(rollout.max_new_tokens)},
      {"rollout.context", std::to_string(rollout.context)},
      {"rollout.on_limit", rollout.on_limit}};
  for (const ToolOptions& tool : config.tools)
    settings["tools: " + tool.name] = fmt::format("offered, max_output_bytes {}, send_item {}",
                                                  tool.max_output_bytes, tool.send_item);
  return settings;
}

std::string value_of(const Settings& settings, const std::string& key) {
  const auto found = settings.find(key);
  return found == settings.end() ? "not offered" : found->second;
}

// With sorted keys.
std::string canonical(const std::string& json) { return nlohmann::json::parse(json).dump(); }

std::vector<std::string> functions_of(const Task& task) {
  std::vector<std::string> functions;
  for (const auto& tool : nlohmann::json::parse(task.tools))
    functions.push_back(tool.value("function", nlohmann::json::object()).dump());
  return functions;
}

}  // namespace

std::vector<std::string> differences_of(const RunConfig& trained, const RunConfig& evaluated) {
  const Settings before = seen_by_policy(trained), now = seen_by_policy(evaluated);
  std::set<std::string> keys;
  for (const Settings* settings : {&before, &now})
    for (const auto& [key, value] : *settings) keys.insert(key);
  std::vector<std::string> lines;
  for (const std::string& key : keys) {
    const std::string was = value_of(before, key), is = value_of(now, key);
    if (was != is) lines.push_back(fmt::format("{} is {}, it was {}", key, is, was));
  }
  return lines;
}

std::vector<std::string> unknown_functions(const std::vector<Task>& train,
                                           const std::vector<Task>& valid) {
  std::set<std::string> known, told;
  for (const Task& task : train)
    for (std::string& function : functions_of(task)) known.insert(std::move(function));
  std::vector<std::string> lines;
  for (const Task& task : valid) {
    for (const std::string& function : functions_of(task)) {
      if (lines.size() == kMostLines || known.contains(function) || !told.insert(function).second)
        continue;
      lines.push_back(
          fmt::format("data.valid, line {}: no training row offers {} so", task.line,
                      nlohmann::json::parse(function).value("name", std::string("a function"))));
    }
  }
  return lines;
}

Overlap overlap_of(const std::string& train_file, const std::vector<Task>& train,
                   const std::string& valid_file, const std::vector<Task>& valid) {
  std::map<std::string, std::int64_t> lines;  // of training rows by their contents
  for (const Task& task : train) lines.try_emplace(canonical(task.item), task.line);
  Overlap overlap;
  for (const Task& task : valid) {
    const auto same = lines.find(canonical(task.item));
    if (same == lines.end()) continue;
    ++overlap.rows;
    if (overlap.places.size() < kMostLines)
      overlap.places.push_back(
          fmt::format("{}:{} is {}:{}", valid_file, task.line, train_file, same->second));
  }
  return overlap;
}

}  // namespace rollcall
