// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/tool_reply.h"

#include <nlohmann/json.hpp>

#include "comms/json_depth.h"

namespace rollcall {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

bool is_text_part(const json& part) {
  return part.is_object() && part.contains("text") && part["text"].is_string();
}

// A string, or a Responses content list, of which the text parts count.
std::optional<std::string> read_output(const json& output) {
  if (output.is_string()) return output.get<std::string>();
  if (!output.is_array()) return std::nullopt;
  std::string text;
  for (const auto& part : output) {
    if (!part.is_object()) return std::nullopt;
    if (is_text_part(part)) text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

void read_metrics(const json& reply, ToolReply& result) {
  if (const auto reward = reply.find("reward"); reward != reply.end() && reward->is_number())
    result.metrics.emplace_back("reward", reward->get<double>());
  const auto metrics = reply.find("metrics");
  if (metrics == reply.end() || !metrics->is_object()) return;
  for (const auto& [name, value] : metrics->items()) {
    if (value.is_number()) result.metrics.emplace_back(name, value.get<double>());
  }
}

}  // namespace

std::optional<ToolReply> read_tool_reply(std::string_view body, std::string_view call_id) {
  if (nests_too_deep(body)) return std::nullopt;
  const json reply = json::parse(body, nullptr, false);
  if (!reply.is_object() || !reply.contains("output")) return std::nullopt;
  if (const auto id = reply.find("call_id");
      id != reply.end() && (!id->is_string() || id->get_ref<const std::string&>() != call_id))
    return std::nullopt;
  auto output = read_output(reply["output"]);
  if (!output) return std::nullopt;
  ToolReply result;
  result.output = std::move(*output);
  const auto done = reply.find("done");
  result.done = done != reply.end() && done->is_boolean() && done->get<bool>();
  read_metrics(reply, result);
  return result;
}

std::string tool_error_text(std::string_view type, std::string_view message, int code) {
  ordered_json error{{"type", type}};
  if (code != 0) error["code"] = code;
  error["message"] = message;
  return ordered_json{{"error", std::move(error)}}.dump(-1, ' ', false,
                                                        ordered_json::error_handler_t::replace);
}

bool is_json_object(std::string_view text) { return json::parse(text, nullptr, false).is_object(); }

}  // namespace rollcall
