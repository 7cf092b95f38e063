// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "comms/error.h"
#include "model/chat_pieces.h"
#include "model/python_json.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kToolsBegin =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
constexpr std::string_view kToolsEnd =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";
constexpr std::string_view kEnd = "<|im_end|>";

// What the templates of the family differ in.
struct Style {
  std::string_view default_system;  // used where no system message comes first
  bool thinks = false;
  bool null_is_empty = false;             // else null content is an error
  bool encodes_string_arguments = false;  // a string goes through tojson as well
};

Style style_of(ChatFamily family) {
  switch (family) {
    case ChatFamily::kQwen3:
      return {.default_system = "", .thinks = true};
    case ChatFamily::kQwen3Revised:
      return {.default_system = "", .thinks = true, .null_is_empty = true};
    case ChatFamily::kQwen3Instruct2507:
      return {.default_system = "", .null_is_empty = true};
    case ChatFamily::kSmolLm2:
      // The published template knows no tools; they are shown as Qwen2.5 shows them.
      return {
          .default_system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
          .encodes_string_arguments = true};
    default:
      return {
          .default_system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
          .encodes_string_arguments = true};
  }
}

std::string_view strip_newlines(std::string_view text, bool left, bool right) {
  while (left && text.starts_with('\n')) text.remove_prefix(1);
  while (right && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

struct Thought {
  std::string reasoning;
  std::string content;
};

// content.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n"), and what follows.
Thought split_thought(std::string_view content) {
  constexpr std::string_view kBegin = "<think>";
  constexpr std::string_view kThoughtEnd = "</think>";
  const std::size_t end = content.find(kThoughtEnd);
  if (end == std::string_view::npos) return {"", std::string(content)};
  std::string_view reasoning = strip_newlines(content.substr(0, end), false, true);
  const std::size_t begin = reasoning.rfind(kBegin);
  if (begin != std::string_view::npos) reasoning.remove_prefix(begin + kBegin.size());
  const std::size_t visible = content.rfind(kThoughtEnd) + kThoughtEnd.size();
  return {std::string(strip_newlines(reasoning, true, false)),
          std::string(strip_newlines(content.substr(visible), true, false))};
}

Thought thought_of(const ordered_json& message, std::string_view content) {
  const ordered_json& reasoning = member(message, "reasoning_content");
  if (!reasoning.is_string()) return split_thought(content);
  return {reasoning.get<std::string>(), std::string(content)};
}

std::string thought_text(const Thought& thought) {
  return "<think>\n" + std::string(strip_newlines(thought.reasoning, true, true)) +
         "\n</think>\n\n" + std::string(strip_newlines(thought.content, true, false));
}

std::string call_text(const ordered_json& call, bool encodes_strings, std::size_t index) {
  const ordered_json& function = call.contains("function") ? call["function"] : call;
  if (!function.is_object() || !member(function, "name").is_string() ||
      !function.contains("arguments")) {
    throw input_error("messages[" + std::to_string(index) +
                      "].tool_calls holds a call without name and arguments");
  }
  const ordered_json& arguments = function["arguments"];
  const bool is_raw = arguments.is_string() && !encodes_strings;
  return "<tool_call>\n{\"name\": \"" + function["name"].get<std::string>() +
         "\", \"arguments\": " + (is_raw ? arguments.get<std::string>() : python_json(arguments)) +
         "}\n</tool_call>";
}

// Each call on a line of its own, behind `lead`.
std::string calls_text(const ordered_json& message, std::string_view lead, bool encodes_strings,
                       std::size_t index) {
  const ordered_json& calls = member(message, "tool_calls");
  if (!calls.is_null() && !calls.is_array()) {
    throw input_error("messages[" + std::to_string(index) + "].tool_calls is not a list");
  }
  std::string text;
  for (const ordered_json& call : calls) {
    text += text.empty() ? lead : "\n";
    text += call_text(call, encodes_strings, index);
  }
  return text;
}

void write_prompt(PieceWriter& out, const Style& style, const ChatOptions& options) {
  out.trusted("<|im_start|>assistant\n");
  if (style.thinks && !options.enable_thinking) out.trusted("<think>\n\n</think>\n\n");
}

class ChatmlWriter {
 public:
  ChatmlWriter(ChatFamily family, Messages messages, Messages tools)
      : style_(style_of(family)), messages_(messages), tools_(tools) {}

  RenderedChat write(const ChatOptions& options, bool add_generation_prompt) {
    write_system();
    if (style_.thinks) find_last_query();
    for (std::size_t i = 0; i < messages_.size(); ++i) write_message(i);
    if (add_generation_prompt) write_prompt(out_, style_, options);
    return out_.take();
  }

 private:
  std::string content_of(std::size_t i) const {
    const bool is_empty = style_.null_is_empty && member(messages_[i], "content").is_null();
    return is_empty ? "" : text_of(messages_[i], "content", i);
  }

  void write_system() {
    const bool given = has_role(messages_[0], "system");
    const std::string_view text =
        given ? text_of(messages_[0], "content", 0) : style_.default_system;
    const bool has_text = given || !style_.default_system.empty();
    if (tools_.empty() && !has_text) return;
    out_.trusted("<|im_start|>system\n");
    given ? out_.untrusted(text) : out_.trusted(text);
    if (!tools_.empty()) {
      if (has_text) out_.trusted("\n\n");
      out_.trusted(kToolsBegin);
      for (const auto& tool : tools_) out_.trusted("\n").untrusted(python_json(tool));
      out_.trusted(kToolsEnd);
    }
    out_.trusted(kEnd).trusted("\n");
  }

  // Thoughts are kept behind the last user message that is not a tool's answer in disguise.
  void find_last_query() {
    last_query_ = messages_.size() - 1;
    for (std::size_t i = messages_.size(); i-- > 0;) {
      if (!has_role(messages_[i], "user")) continue;
      if (style_.null_is_empty && !member(messages_[i], "content").is_string()) continue;
      const std::string& text = text_of(messages_[i], "content", i);
      if (text.starts_with("<tool_response>") && text.ends_with("</tool_response>")) continue;
      last_query_ = i;
      return;
    }
  }

  void write_message(std::size_t i) {
    const ordered_json& message = messages_[i];
    if (has_role(message, "assistant")) {
      write_assistant(i);
    } else if (has_role(message, "tool")) {
      write_result(i);
    } else if (has_role(message, "user") || (has_role(message, "system") && i > 0)) {
      out_.trusted("<|im_start|>" + text_of(message, "role", i) + "\n");
      out_.untrusted(content_of(i)).trusted(kEnd).trusted("\n");
    } else if (!has_role(message, "system")) {
      throw input_error(
          "messages[" + std::to_string(i) + "] has a role that the chat template would leave out",
          "use the roles system (or developer), user, assistant and tool");
    }
  }

  void write_assistant(std::size_t i) {
    out_.trusted("<|im_start|>assistant" +
                 (style_.encodes_string_arguments ? plain_body(i) : "\n" + body(i)));
    out_.trusted(kEnd);
    out_.end_turn(i);
    out_.trusted("\n");
  }

  // Qwen2.5: the line break goes with the content, which calls may lack.
  std::string plain_body(std::size_t i) const {
    const ordered_json& message = messages_[i];
    const std::string calls = calls_text(message, "\n", true, i);
    const bool has_content = !member(message, "content").is_null() || calls.empty();
    const std::string content = has_content ? text_of(message, "content", i) : "";
    return (calls.empty() || !content.empty() ? "\n" + content : "") + calls;
  }

  std::string body(std::size_t i) const {
    const Thought thought =
        style_.thinks ? thought_of(messages_[i], content_of(i)) : Thought{"", content_of(i)};
    const bool is_last = i + 1 == messages_.size();
    const bool shows = style_.thinks && i > last_query_ && (is_last || !thought.reasoning.empty());
    return (shows ? thought_text(thought) : thought.content) +
           calls_text(messages_[i], thought.content.empty() ? "" : "\n", false, i);
  }

  void write_result(std::size_t i) {
    const bool first = i == 0 || !has_role(messages_[i - 1], "tool");
    const bool last = i + 1 == messages_.size() || !has_role(messages_[i + 1], "tool");
    if (first) out_.trusted("<|im_start|>user");
    out_.trusted("\n<tool_response>\n").untrusted(content_of(i)).trusted("\n</tool_response>");
    if (last) out_.trusted(kEnd).trusted("\n");
  }

  Style style_;
  Messages messages_;
  Messages tools_;
  std::size_t last_query_ = 0;
  PieceWriter out_;
};

}  // namespace

RenderedChat render_chatml(ChatFamily family, Messages messages, Messages tools,
                           const ChatOptions& options, bool prompt) {
  return ChatmlWriter(family, messages, tools).write(options, prompt);
}

std::vector<TextPiece> chatml_results(ChatFamily family, std::span<const std::string> outputs,
                                      const ChatOptions& options) {
  PieceWriter out;
  out.trusted("\n<|im_start|>user");
  for (const std::string& output : outputs) {
    out.trusted("\n<tool_response>\n").untrusted(output).trusted("\n</tool_response>");
  }
  out.trusted(kEnd).trusted("\n");
  write_prompt(out, style_of(family), options);
  return out.take().pieces;
}

std::vector<TextPiece> chatml_turn(ChatFamily family, const ordered_json& message,
                                   const ChatOptions& options) {
  const Style style = style_of(family);
  const bool has_content = !member(message, "content").is_null();
  const std::string content = has_content ? text_of(message, "content", 0) : "";
  const Thought thought = style.thinks ? thought_of(message, content) : Thought{"", content};
  const bool shows = style.thinks && options.enable_thinking;
  PieceWriter out;
  out.trusted(shows ? thought_text(thought) : thought.content);
  out.trusted(calls_text(message, thought.content.empty() ? "" : "\n", false, 0));
  out.trusted(kEnd);
  return out.take().pieces;
}

}  // namespace rollcall
