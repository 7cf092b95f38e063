// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/reencoding_check.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "comms/json_depth.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;
using Ids = std::span<const std::int32_t>;

// The text around the first byte that differs, on one line.
std::string around(std::string_view text, std::size_t at) {
  constexpr std::size_t kBefore = 20, kLength = 60;
  const std::size_t begin = at - std::min(at, kBefore);
  return ordered_json(text.substr(begin, kLength))
      .dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

template <typename Range>
std::size_t first_difference(const Range& a, const Range& b) {
  return static_cast<std::size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

// The arguments as servers read them: parsed, unless they hold what has no value (1e400).
ordered_json call_of(const ToolCall& call) {
  ordered_json arguments = ordered_json::value_t::discarded;
  if (!nests_too_deep(call.arguments))
    arguments = ordered_json::parse(call.arguments, nullptr, false);
  if (arguments.is_discarded()) arguments = call.arguments;
  return {{"type", "function"},
          {"function", {{"name", call.name}, {"arguments", std::move(arguments)}}}};
}

}  // namespace

struct ReencodingCheck::Conversation {
  ordered_json messages, tools;
};

ReencodingCheck::ReencodingCheck(const Task& task, const ChatFormat& format,
                                 const Tokenizer& tokenizer)
    : format_(format),
      tokenizer_(tokenizer),
      conversation_(std::make_unique<Conversation>(
          Conversation{ordered_json::parse(task.messages), ordered_json::parse(task.tools)})) {}

ReencodingCheck::~ReencodingCheck() = default;

void ReencodingCheck::add_turn(std::string_view text, const ParsedTurn& turn) {
  std::string_view content = text.substr(0, turn.calls.empty() ? text.size() : turn.content_end);
  // Templates break the line before a call; servers cut that break off when they read the turn.
  if (!turn.calls.empty() && content.ends_with('\n')) content.remove_suffix(1);
  ordered_json message{{"role", "assistant"}, {"content", content}};
  for (const auto& call : turn.calls) message["tool_calls"].push_back(call_of(call));
  conversation_->messages.push_back(std::move(message));
}

void ReencodingCheck::add_results(std::span<const std::string> outputs) {
  for (const auto& output : outputs)
    conversation_->messages.push_back({{"role", "tool"}, {"content", output}});
}

std::string ReencodingCheck::compare(Ids tokens) {
  ++compared_;
  std::vector<std::int32_t> again;
  try {
    again = format_.render_prompt(conversation_->messages, conversation_->tools);
  } catch (const Error& error) {
    ++other_text_, ++other_tokens_;
    return std::string("the template refuses the conversation: ") + error.what();
  }
  if (std::ranges::equal(again, tokens)) return {};
  ++other_tokens_;
  const std::string seen = tokenizer_.decode(tokens), rendered = tokenizer_.decode(again);
  if (seen == rendered) {
    const auto at = first_difference(tokens, Ids(again));
    return "the text is the same, its tokens differ from token " + std::to_string(at) +
           " on: " + around(tokenizer_.decode(tokens.subspan(at)), 0);
  }
  ++other_text_;
  const auto at = first_difference(seen, rendered);
  return "the policy saw " + around(seen, at) + ", rendered anew it is " + around(rendered, at) +
         ", from byte " + std::to_string(at) + " on";
}

std::vector<std::pair<std::string, double>> ReencodingCheck::shares() const {
  if (compared_ == 0) return {};
  return {{"reencoding.other_text", static_cast<double>(other_text_) / compared_},
          {"reencoding.other_tokens", static_cast<double>(other_tokens_) / compared_}};
}

}  // namespace rollcall
