// SPDX-License-Identifier: Apache-2.0
#include "rollcall/dataset_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "comms/error.h"
#include "model/chat_format.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kRowsPerThread = 64;  // below this a thread costs more than it saves
constexpr std::size_t kNamed = 10;          // rows that a warning names

struct RowCheck {
  std::string problem, what_to_do;    // empty: the row is good
  std::vector<std::string> unserved;  // its tools that nothing serves
  bool none_served = false;           // and it has no other
};

void check_prompt(const Task& task, const ordered_json& tools, const ChatFormat& format,
                  std::int64_t context, RowCheck& check) try {
  const auto tokens = static_cast<std::int64_t>(
      format.render_prompt(ordered_json::parse(task.messages), tools).size());
  if (tokens < context) return;
  check.problem = fmt::format(
      "its prompt has {} tokens, which leaves none of rollout.context ({}) to sample", tokens,
      context);
  check.what_to_do = "raise rollout.context, or shorten these rows or leave them out";
} catch (const Error& error) {
  check.problem = error.what();
  check.what_to_do = error.what_to_do();
} catch (const std::exception& error) {
  check.problem = std::string("cannot be rendered: ") + error.what();
}

RowCheck check_row(const Task& task, const ChatFormat& format, std::int64_t context,
                   const std::set<std::string>& served) {
  RowCheck check;
  const ordered_json tools = ordered_json::parse(task.tools);
  check_prompt(task, tools, format, context, check);
  for (const auto& tool : tools) {
    auto name = tool.at("function").at("name").get<std::string>();
    if (!served.contains(name)) check.unserved.push_back(std::move(name));
  }
  check.none_served = !tools.empty() && check.unserved.size() == tools.size();
  return check;
}

std::vector<RowCheck> check_all(std::span<const Task> tasks, const ChatFormat& format,
                                std::int64_t context, const std::set<std::string>& served) {
  std::vector<RowCheck> checks(tasks.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < tasks.size();)
      checks[i] = check_row(tasks[i], format, context, served);
  };
  const std::size_t threads =
      std::min<std::size_t>(std::max(1U, std::thread::hardware_concurrency()),
                            1 + tasks.size() / kRowsPerThread);
  std::vector<std::jthread> others;
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  others.clear();  // joins
  return checks;
}

std::string unserved_warning(const std::string& name, std::span<const Task> tasks,
                             std::span<const RowCheck> checks) {
  std::set<std::string> tools;
  std::string rows;
  std::size_t count = 0, without_any = 0;
  for (std::size_t i = 0; i < checks.size(); ++i) {
    if (checks[i].unserved.empty()) continue;
    tools.insert(checks[i].unserved.begin(), checks[i].unserved.end());
    without_any += checks[i].none_served ? 1 : 0;
    if (count++ < kNamed) rows += fmt::format("{}{}", rows.empty() ? "" : ", ", tasks[i].line);
  }
  if (count == 0) return "";
  if (count > kNamed) rows += fmt::format(" and {} more", count - kNamed);
  std::string text;
  for (const std::string& tool : tools) text += (text.empty() ? "" : ", ") + tool;
  return fmt::format(
      "{}: {} of {} rows offer tools that no entry of `tools:` serves ({}), {} of them no other; "
      "lines {}. A call of such a tool ends its rollout, which is graded as it is: if that is not "
      "meant, add the tool to `tools:` or mend its name",
      name, count, tasks.size(), text, without_any, rows);
}

}  // namespace

std::string check_rows(const std::string& name, std::span<const Task> tasks,
                       const ChatFormat& format, std::int64_t context,
                       const std::set<std::string>& served) {
  const std::vector<RowCheck> checks = check_all(tasks, format, context, served);
  RowComplaints complaints(name);
  std::string what_to_do;
  for (std::size_t i = 0; i < checks.size(); ++i) {
    if (checks[i].problem.empty()) continue;
    complaints.add(tasks[i].line, checks[i].problem);
    if (what_to_do.empty()) what_to_do = checks[i].what_to_do;
  }
  complaints.throw_if_any(what_to_do.empty() ? "mend these rows or leave them out" : what_to_do);
  return unserved_warning(name, tasks, checks);
}

}  // namespace rollcall
