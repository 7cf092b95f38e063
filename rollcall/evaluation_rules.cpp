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
      {"rollout.on_limit", rollout.on_limit},
      {"rollout.on_void_turn", rollout.on_void_turn}};
  for (const ToolOptions& tool : config.tools)
    settings["tools: " + tool.name] = fmt::format("offered, max_output_bytes {}, send_item {}",
                                                  tool.max_output_bytes, tool.send_item);
  return settings;
}

std::string value_of(const Settings& settings, const std::string& key) {
  const auto found = settings.find(key);
  return found == settings.end() ? "not offered" : found->second;
}

using nlohmann::json;

std::set<std::string> functions_of(const Task& task) {
  std::set<std::string> functions;
  for (const auto& tool : json::parse(task.tools))
    functions.insert(tool.value("function", json::object()).dump());
  return functions;
}

std::string system_of(const Task& task) {
  json messages = json::array();
  for (const auto& message : json::parse(task.messages)) {
    const auto role = message.value("role", std::string());
    if (role == "system" || role == "developer") messages.push_back(message);
  }
  return messages.dump();
}

// What training rows have in common: each value stands in two of them on average at least.
template <class Value, class Of>
std::set<Value> shared_by(const std::vector<Task>& tasks, const Of& of) {
  std::set<Value> values;
  for (const Task& task : tasks) values.insert(of(task));
  if (2 * values.size() > tasks.size()) values.clear();
  return values;
}

bool same_row(const json& a, const json& b) {
  for (const auto& [key, value] : a.items()) {
    const auto other = b.find(key);
    if (key != "id" && other != b.end() && *other != value) return false;
  }
  return true;
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

std::vector<std::string> novelties(const std::vector<Task>& train, const std::vector<Task>& valid) {
  std::set<std::string> known, told;
  for (const Task& task : train) known.merge(functions_of(task));
  const auto sets = shared_by<std::set<std::string>>(train, functions_of);
  const auto systems = shared_by<std::string>(train, system_of);
  std::vector<std::string> lines;
  const auto tell = [&](const Task& task, const std::string& what) {
    if (lines.size() < kMostLines && told.insert(what).second)
      lines.push_back(fmt::format("data.valid, line {}: {}", task.line, what));
  };
  for (const Task& task : valid) {
    const auto functions = functions_of(task);
    bool all_known = true;
    for (const std::string& function : functions) {
      if (known.contains(function)) continue;
      all_known = false;
      tell(task, fmt::format("no training row offers {} so",
                             json::parse(function).value("name", std::string("a function"))));
    }
    if (all_known && !sets.empty() && !sets.contains(functions))
      tell(task, fmt::format("no training row offers these {} functions and no others",
                             functions.size()));
    if (!systems.empty() && !systems.contains(system_of(task)))
      tell(task, "no training row has this system message");
  }
  return lines;
}

Overlap overlap_of(const std::string& train_file, const std::vector<Task>& train,
                   const std::string& valid_file, const std::vector<Task>& valid) {
  // By their messages; JSON compares whatever the order of keys.
  std::map<std::string, std::vector<std::pair<json, std::int64_t>>> rows;
  for (const Task& task : train)
    rows[json::parse(task.messages).dump()].emplace_back(json::parse(task.item), task.line);
  Overlap overlap;
  for (const Task& task : valid) {
    const auto alike = rows.find(json::parse(task.messages).dump());
    if (alike == rows.end()) continue;
    const json item = json::parse(task.item);
    const auto same = std::ranges::find_if(
        alike->second, [&](const auto& row) { return same_row(item, row.first); });
    if (same == alike->second.end()) continue;
    ++overlap.rows;
    if (overlap.places.size() < kMostLines)
      overlap.places.push_back(
          fmt::format("{}:{} is {}:{}", valid_file, task.line, train_file, same->second));
  }
  return overlap;
}

}  // namespace rollcall
