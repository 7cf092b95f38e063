// SPDX-License-Identifier: Apache-2.0
#include "model/tool_call_parser.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace rollcall {
namespace {

using nlohmann::json;
using Outcome = std::variant<ToolCall, ParseError>;

constexpr std::string_view kCallBegin = "<tool_call>";
constexpr std::string_view kCallEnd = "</tool_call>";
constexpr std::string_view kThinkBegin = "<think>";
constexpr std::string_view kThinkEnd = "</think>";
constexpr std::string_view kPythonTag = "<|python_tag|>";
constexpr std::string_view kSpace = " \t\n\r\f\v";

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// json::accept takes a byte order mark in front, and a NUL for the end of the text.
bool is_strict_json(std::string_view text) {
  return !text.starts_with('\xEF') && text.find('\0') == std::string_view::npos &&
         json::accept(text);
}

// Finds the members of the object at the top of valid JSON text, values as they were written. No
// recursion and no values in memory: a model may nest as deep as its context is long.
class MemberScanner {
 public:
  explicit MemberScanner(std::string_view object) : text_(object) {}

  // The last member of that name, as Python's dictionaries keep it.
  std::optional<std::string_view> find(std::string_view name) {
    std::optional<std::string_view> found;
    at_ = 1;
    for (skip_to_value(); text_[at_] != '}'; skip_to_value()) {
      const std::string key = json::parse(take_value()).get<std::string>();
      skip_to_value();
      const std::string_view value = take_value();
      if (key == name) found = value;
    }
    return found;
  }

 private:
  void skip_to_value() { at_ = text_.find_first_not_of(" \t\n\r:,", at_); }

  void skip_string() {
    for (++at_; text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\') ++at_;
    }
    ++at_;
  }

  std::string_view take_value() {
    const std::size_t begin = at_;
    std::size_t depth = 0;
    do {
      const char c = text_[at_];
      if (c == '"') {
        skip_string();
        continue;
      }
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
      ++at_;
    } while (depth > 0 || !value_ended(begin));
    return text_.substr(begin, at_ - begin);
  }

  // Strings and containers end by themselves, literals and numbers before a delimiter.
  bool value_ended(std::size_t begin) const {
    const char first = text_[begin];
    if (first == '"' || first == '{' || first == '[') return true;
    return std::string_view(" \t\n\r,}]").find(text_[at_]) != std::string_view::npos;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

ParseError parse_error(std::string kind, std::string message) {
  return {std::move(kind), 0, std::move(message)};
}

Outcome read_call(std::string_view block, std::span<const std::string_view> argument_keys) {
  const std::string_view text = trimmed(block);
  if (!is_strict_json(text)) return parse_error("invalid_json", "the tool call is not valid JSON");
  if (text.front() != '{') return parse_error("not_object", "the tool call is not a JSON object");
  MemberScanner scanner(text);
  const auto name = scanner.find("name");
  if (!name || name->front() != '"') {
    return parse_error("missing_name", "the tool call has no string \"name\"");
  }
  std::optional<std::string_view> arguments;
  for (const std::string_view key : argument_keys) {
    if (!arguments) arguments = scanner.find(key);
  }
  if (!arguments) {
    return parse_error("missing_arguments",
                       "the tool call has no \"" + std::string(argument_keys.front()) + "\"");
  }
  if (arguments->front() != '{') {
    return parse_error("bad_arguments", "the tool call's arguments are not a JSON object");
  }
  return ToolCall{json::parse(*name).get<std::string>(), std::string(*arguments)};
}

ParsedTurn failed(ParsedTurn turn, ParseError error, std::size_t offset) {
  turn.calls.clear();
  error.offset = offset;
  turn.error = std::move(error);
  return turn;
}

struct Block {
  std::string_view body;
  std::size_t begin;  // of the opening tag
  std::size_t end;    // behind the closing tag
  bool closed;
};

Block block_at(std::string_view text, std::size_t begin) {
  const std::size_t body = begin + kCallBegin.size();
  const std::size_t end = text.find(kCallEnd, body);
  if (end == std::string_view::npos) return {text.substr(body), begin, text.size(), false};
  return {text.substr(body, end - body), begin, end + kCallEnd.size(), true};
}

Outcome read_block(const Block& block) {
  constexpr std::string_view kKeys[] = {"arguments"};
  if (!block.closed && !is_strict_json(trimmed(block.body))) {
    return parse_error("unclosed", "the tool call has no " + std::string(kCallEnd));
  }
  return read_call(block.body, kKeys);
}

ParsedTurn parse_hermes(std::string_view text) {
  const std::size_t thought_end = text.rfind(kThinkEnd);
  const std::size_t visible =
      thought_end == std::string_view::npos ? 0 : thought_end + kThinkEnd.size();
  ParsedTurn turn;
  for (std::size_t end = visible;;) {  // behind the last call
    const std::size_t begin = text.find(kCallBegin, end);
    const std::size_t thought = text.find(kThinkBegin, end);
    if (thought < begin) {
      return failed(std::move(turn), parse_error("unclosed_think", "the thought has no </think>"),
                    thought);
    }
    if (end == visible) {
      turn.content_end = std::min(begin, text.size());
      turn.content = text.substr(visible, turn.content_end - visible);
    }
    if (begin == std::string_view::npos) return turn;
    const Block block = block_at(text, begin);
    Outcome outcome = read_block(block);
    if (auto* error = std::get_if<ParseError>(&outcome)) {
      return failed(std::move(turn), std::move(*error), begin);
    }
    turn.calls.push_back(std::get<ToolCall>(std::move(outcome)));
    end = block.end;
  }
}

ParsedTurn parse_llama3_json(std::string_view text) {
  constexpr std::string_view kKeys[] = {"parameters", "arguments"};
  std::string_view body = text;
  if (body.starts_with(kPythonTag)) body.remove_prefix(kPythonTag.size());
  body = trimmed(body);
  ParsedTurn turn;
  if (!body.starts_with('{')) {
    turn.content = text;
    turn.content_end = text.size();
    return turn;
  }
  Outcome outcome = read_call(body, kKeys);
  if (auto* error = std::get_if<ParseError>(&outcome)) {
    return failed(std::move(turn), std::move(*error),
                  static_cast<std::size_t>(body.data() - text.data()));
  }
  turn.calls.push_back(std::get<ToolCall>(std::move(outcome)));
  return turn;
}

}  // namespace

ParsedTurn parse_tool_calls(ToolCallSyntax syntax, std::string_view turn_text) {
  return syntax == ToolCallSyntax::kHermes ? parse_hermes(turn_text) : parse_llama3_json(turn_text);
}

}  // namespace rollcall
