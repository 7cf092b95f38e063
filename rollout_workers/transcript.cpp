// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/transcript.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comms/json_depth.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

constexpr char kCallPrefix[] = "call_";

// Blocks that could not be read as a call have a result, but are no call.
bool is_call(const ToolEvent& event) { return !event.name.empty(); }

// Calls that a limit or a missing endpoint kept from being made have no output.
bool is_answered(const ToolEvent& event) { return event.status != 0 || event.is_error; }

std::string item_id(const ToolEvent& event) {
  return "fc_" + event.call_id.substr(sizeof kCallPrefix - 1);
}

ordered_json chat_calls(std::span<const ToolEvent> events) {
  ordered_json calls = ordered_json::array();
  for (const auto& event : events) {
    if (!is_call(event)) continue;
    calls.push_back({{"id", event.call_id},
                     {"type", "function"},
                     {"function", {{"name", event.name}, {"arguments", event.arguments}}}});
  }
  return calls;
}

ordered_json message_item(const std::string& content, std::size_t turn) {
  ordered_json text{{"type", "output_text"}, {"text", content}};
  text["annotations"] = ordered_json::array();
  ordered_json item{{"type", "message"}, {"id", "msg_" + std::to_string(turn)}};
  item["role"] = "assistant";
  item["status"] = "completed";
  item["content"] = ordered_json::array({std::move(text)});
  return item;
}

// What came after the prompt, as Responses items: message, then calls, then their outputs, turn by
// turn.
ordered_json response_items(const Trajectory& t, std::span<const TurnText> turns) {
  ordered_json items = ordered_json::array();
  for (std::size_t i = 0; i < turns.size(); ++i) {
    if (!turns[i].content.empty()) items.push_back(message_item(turns[i].content, i));
    const auto events = std::span(t.tool_events).subspan(turns[i].first_event, turns[i].events);
    for (const auto& event : events) {
      if (!is_call(event)) continue;
      items.push_back({{"type", "function_call"},
                       {"id", item_id(event)},
                       {"call_id", event.call_id},
                       {"name", event.name},
                       {"arguments", event.arguments},
                       {"status", "completed"}});
    }
    for (const auto& event : events) {
      if (!is_call(event) || !is_answered(event)) continue;
      items.push_back({{"type", "function_call_output"},
                       {"id", item_id(event)},
                       {"call_id", event.call_id},
                       {"output", event.output}});
    }
  }
  return items;
}

ordered_json choice(const Trajectory& t, std::span<const TurnText> turns) {
  ordered_json message{{"role", "assistant"}, {"content", t.final_text}};
  if (!turns.empty()) {
    const auto last =
        std::span(t.tool_events).subspan(turns.back().first_event, turns.back().events);
    ordered_json calls = chat_calls(last);
    if (!calls.empty()) message["tool_calls"] = std::move(calls);
  }
  return {{"index", 0},
          {"message", std::move(message)},
          {"finish_reason", is_limit(t.end) ? "length" : "stop"}};
}

ordered_json usage(const Trajectory& t) {
  const auto sampled = sampled_tokens(t);
  const auto total = static_cast<std::int64_t>(t.tokens.size());
  return {
      {"prompt_tokens", total - sampled}, {"completion_tokens", sampled}, {"total_tokens", total}};
}

ordered_json output_json(const std::string& text) {
  if (nests_too_deep(text)) return {};
  ordered_json parsed = ordered_json::parse(text, nullptr, false);
  return parsed.is_structured() ? parsed : ordered_json();
}

}  // namespace

std::string grade_request_body(const Trajectory& t, std::span<const TurnText> turns,
                               const Task& task) {
  ordered_json sample{{"output_text", t.final_text}, {"output_json", output_json(t.final_text)}};
  sample["output_tools"] = chat_calls(t.tool_events);
  sample["choices"] = ordered_json::array({choice(t, turns)});
  sample["output_reasoning_summary"] = nullptr;
  sample["trajectory"] = response_items(t, turns);
  sample["usage"] = usage(t);
  sample["stop_reason"] = to_string(t.end);
  constexpr auto kReplace = ordered_json::error_handler_t::replace;
  return "{\"sample\":" + sample.dump(-1, ' ', false, kReplace) + ",\"item\":" + task.item +
         ",\"trace_id\":" + ordered_json(t.trace_id).dump() + "}";
}

}  // namespace rollcall
