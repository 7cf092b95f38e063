// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/rollout.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "comms/log.h"
#include "rollout_workers/attempt.h"
#include "rollout_workers/ids.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

ordered_json parse_array(const std::string& text, const char* what, const Task& task) {
  ordered_json parsed = ordered_json::parse(text, nullptr, false);
  if (!parsed.is_array())
    throw input_error("dataset row " + std::to_string(task.row) + ": " + what +
                      " is no JSON array");
  return parsed;
}

Episode make_episode(const Task& task, const ChatFormat& format) {
  const ordered_json messages = parse_array(task.messages, "messages", task);
  const ordered_json tools = parse_array(task.tools, "tools", task);
  Episode episode{task, format.render_prompt(messages, tools), {}};
  for (const auto& tool : tools) {
    const auto name = tool.value(ordered_json::json_pointer("/function/name"), ordered_json());
    if (name.is_string()) episode.tools.insert(name.get<std::string>());
  }
  return episode;
}

std::string story(const Trajectory& t) {
  return rollout_id(t.assignment) + " attempt " + std::to_string(t.assignment.attempt) + " (" +
         t.trace_id + "): " + to_string(t.end) + ", " + to_string(t.fault) +
         (t.fault_detail.empty() ? "" : ": " + t.fault_detail);
}

}  // namespace

asio::awaitable<Trajectory> run_rollout(Assignment assignment, const Task& task,
                                        RolloutContext context) {
  const auto start = Clock::now();
  const Episode episode = make_episode(task, context.format);
  double generate_time_s = 0;
  for (int attempt = 1;; ++attempt, ++assignment.attempt) {
    Attempt one(assignment, episode, context);
    co_await one.run();
    const bool again = one.worth_repeating() && attempt < context.options.max_attempts;
    if (!again) one.give_up();
    Trajectory trajectory = one.take();
    generate_time_s += trajectory.generate_time_s;
    if (!trajectory.fault_detail.empty()) log_debug(story(trajectory));
    if (again) continue;
    trajectory.generate_time_s = generate_time_s;
    trajectory.wall_time_s = std::chrono::duration<double>(Clock::now() - start).count();
    co_return trajectory;
  }
}

}  // namespace rollcall
