// SPDX-License-Identifier: Apache-2.0
#include "trainer/demonstrations.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "comms/error.h"
#include "comms/json_depth.h"
#include "model/chat_format.h"
#include "model/chat_messages.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

std::string role_of(const ordered_json& message) {
  return message.is_object() ? message.value("role", std::string()) : std::string();
}

void append(Demonstration& d, const std::vector<std::int32_t>& ids, bool action) {
  d.tokens.insert(d.tokens.end(), ids.begin(), ids.end());
  d.is_action.insert(d.is_action.end(), ids.size(), action ? 1 : 0);
}

// The results of the tool messages from `i` on; moves `i` behind them.
std::vector<std::string> take_tool_results(const ordered_json& messages, std::size_t& i) {
  std::vector<std::string> outputs;
  for (; i < messages.size() && role_of(messages[i]) == "tool"; ++i)
    outputs.push_back(messages[i].at("content").get<std::string>());
  return outputs;
}

}  // namespace

Demonstration render_demonstration(std::string_view row, const ChatFormat& format) {
  try {
    if (nests_too_deep(row)) throw input_error("the row nests too deep");
    const ordered_json json = ordered_json::parse(row);
    const ordered_json messages = plain_messages(json.at("messages"));
    const ordered_json tools = json.value("tools", ordered_json::array());
    std::size_t i = 0;
    ordered_json opening = ordered_json::array();
    for (; i < messages.size() && role_of(messages[i]) != "assistant"; ++i)
      opening.push_back(messages[i]);
    if (i == 0 || i == messages.size())
      throw input_error("a demonstration needs a user message followed by an assistant message");
    Demonstration d;
    append(d, format.render_prompt(opening, tools), false);
    d.prompt_length = static_cast<std::int64_t>(d.tokens.size());
    while (i < messages.size()) {
      if (role_of(messages[i]) != "assistant")
        throw input_error(
            "message " + std::to_string(i) + " of a demonstration has the role '" +
            role_of(messages[i]) +
            "'; after the first assistant message come only tool results and assistant messages");
      append(d, format.render_assistant(messages[i++]), true);
      const auto outputs = take_tool_results(messages, i);
      if (outputs.empty() && i < messages.size() && role_of(messages[i]) == "assistant")
        throw input_error("message " + std::to_string(i) +
                              " of a demonstration follows an assistant "
                              "message that no tool has answered",
                          "join the two messages, or split the row");
      if (!outputs.empty())
        append(d, format.render_tool_results(outputs, /*end_turn=*/false), false);
    }
    return d;
  } catch (const nlohmann::json::exception& error) {
    throw input_error(std::string("not a conversation: ") + error.what());
  }
}

std::vector<Demonstration> read_demonstrations(const std::filesystem::path& file,
                                               const ChatFormat& format) {
  std::ifstream in(file);
  if (!in)
    throw input_error("cannot read sft.demonstrations: " + file.string(),
                      "check the path; it is relative to the run file");
  std::vector<Demonstration> demonstrations;
  std::string line;
  for (std::int64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      demonstrations.push_back(render_demonstration(line, format));
    } catch (const Error& error) {
      throw input_error(file.string() + ":" + std::to_string(number) + ": " + error.what(),
                        error.what_to_do());
    }
  }
  if (demonstrations.empty()) throw input_error(file.string() + " holds no demonstrations");
  return demonstrations;
}

}  // namespace rollcall
