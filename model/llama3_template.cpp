// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>
#include <utility>

#include "comms/error.h"
#include "model/chat_pieces.h"
#include "model/python_json.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kEnd = "<|eot_id|>";
constexpr std::string_view kToolsGuide =
    "Given the following functions, please respond with a JSON for a function call with its proper "
    "arguments that best answers the given prompt.\n\nRespond in the format {\"name\": function "
    "name, \"parameters\": dictionary of argument name and its value}.Do not use variables.\n\n";

void write_header(PieceWriter& out, std::string_view role) {
  out.trusted("<|start_header_id|>").trusted(role).trusted("<|end_header_id|>\n\n");
}

std::string call_text(const ordered_json& message, std::size_t index) {
  const ordered_json& calls = member(message, "tool_calls");
  if (!calls.is_array() || calls.size() != 1) {
    throw input_error("messages[" + std::to_string(index) +
                          "].tool_calls: a Llama-3 turn holds exactly one tool call",
                      "split the calls over turns, or leave tool_calls out");
  }
  const ordered_json& function = member(calls[0], "function");
  if (!member(function, "name").is_string() || !function.contains("arguments")) {
    throw input_error("messages[" + std::to_string(index) +
                      "].tool_calls[0] lacks function.name or function.arguments");
  }
  return "{\"name\": \"" + function["name"].get<std::string>() +
         "\", \"parameters\": " + python_json(function["arguments"]) + "}";
}

// `message.content | trim`; null, which the template would print as None, is an error.
std::string stripped_content(const ordered_json& message, std::size_t index) {
  return std::string(python_strip(text_of(message, "content", index)));
}

void write_result(PieceWriter& out, const ordered_json& content) {
  write_header(out, "ipython");
  out.untrusted(python_json(content)).trusted(kEnd);
}

class Llama3Writer {
 public:
  Llama3Writer(Messages messages, Messages tools) : messages_(messages), tools_(tools) {}

  RenderedChat write(const ChatOptions& options, bool add_generation_prompt) {
    out_.trusted("<|begin_of_text|>");
    write_system(options);
    if (!tools_.empty()) write_tools();
    for (; next_ < messages_.size(); ++next_) write_message(messages_[next_]);
    if (add_generation_prompt) write_header(out_, "assistant");
    return out_.take();
  }

 private:
  void write_system(const ChatOptions& options) {
    write_header(out_, "system");
    if (!tools_.empty()) out_.trusted("Environment: ipython\n");
    out_.trusted("Cutting Knowledge Date: December 2023\nToday Date: " + options.date_string +
                 "\n\n");
    if (has_role(messages_[0], "system")) out_.untrusted(stripped_content(messages_[next_++], 0));
    out_.trusted(kEnd);
  }

  // The tools go into the first user message.
  void write_tools() {
    if (next_ == messages_.size()) {
      throw input_error("messages has no user message to put the tools into");
    }
    write_header(out_, "user");
    out_.trusted(kToolsGuide);
    for (const auto& tool : tools_) out_.untrusted(python_json(tool, 4)).trusted("\n\n");
    out_.untrusted(stripped_content(messages_[next_], next_)).trusted(kEnd);
    ++next_;
  }

  void write_message(const ordered_json& message) {
    if (message.contains("tool_calls") && !message["tool_calls"].is_null()) {
      write_header(out_, "assistant");
      out_.trusted(call_text(message, next_)).trusted(kEnd);
      out_.end_turn(next_);
    } else if (has_role(message, "tool") || has_role(message, "ipython")) {
      write_result(out_, member(message, "content"));
    } else if (has_role(message, "assistant")) {
      write_header(out_, "assistant");
      out_.trusted(stripped_content(message, next_)).trusted(kEnd);
      out_.end_turn(next_);
    } else {
      write_header(out_, text_of(message, "role", next_));
      out_.untrusted(stripped_content(message, next_)).trusted(kEnd);
    }
  }

  Messages messages_;
  Messages tools_;
  std::size_t next_ = 0;
  PieceWriter out_;
};

}  // namespace

RenderedChat render_llama3(Messages messages, Messages tools, const ChatOptions& options,
                           bool prompt) {
  return Llama3Writer(messages, tools).write(options, prompt);
}

std::vector<TextPiece> llama3_results(std::span<const std::string> outputs) {
  PieceWriter out;
  for (const std::string& output : outputs) write_result(out, output);
  write_header(out, "assistant");
  return out.take().pieces;
}

std::vector<TextPiece> llama3_turn(const ordered_json& message) {
  PieceWriter out;
  const bool calls = !member(message, "tool_calls").empty();
  out.trusted(calls ? call_text(message, 0) : stripped_content(message, 0)).trusted(kEnd);
  return out.take().pieces;
}

}  // namespace rollcall
