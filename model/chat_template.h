// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/chat_format.h"
#include "model/tokenizer.h"
#include "model/tool_call_parser.h"

namespace rollcall {

// The published chat templates that are written out in C++.
enum class ChatFamily : std::uint8_t {
  kQwen25,
  kQwen3,              // as published with the models, April 2025
  kQwen3Revised,       // later revision: null content is empty content
  kQwen3Instruct2507,  // no thoughts
  kSmolLm2,
  kLlama31,
  kLlama32,
};

struct RenderedChat {
  std::vector<TextPiece> pieces;
  // For each assistant message: its index, and the index of the first piece behind its stop token.
  std::vector<std::pair<std::size_t, std::size_t>> turn_ends;
};

// What the template puts between a model turn's stop token and the next model turn.
struct ChatDelta {
  std::size_t after_message;  // index of the assistant message
  std::vector<TextPiece> pieces;
};

using Messages = std::span<const nlohmann::ordered_json>;  // OpenAI form

// The chat template of DIR: chat_template.jinja, else the one in tokenizer_config.json. Throws an
// input Error if there is none.
std::string read_chat_template(const std::filesystem::path& dir);

// The family whose template this is, trailing newlines aside. Throws an input Error that shows the
// fingerprint of an unknown template.
ChatFamily chat_family(std::string_view template_text);

// The whole conversation. Throws an input Error where the template would raise, and where it would
// drop a message or print something that is not text. Assistant messages are trusted: they may hold
// control tokens.
RenderedChat render_chat(ChatFamily family, Messages messages, Messages tools,
                         const ChatOptions& options, bool add_generation_prompt);

// One delta for each assistant message that tool or user messages follow.
std::vector<ChatDelta> render_deltas(ChatFamily family, Messages messages, Messages tools,
                                     const ChatOptions& options);

// Tool results behind a model turn, from behind its stop token to the next generation prompt.
std::vector<TextPiece> render_results(ChatFamily family, std::span<const std::string> outputs,
                                      const ChatOptions& options);

// An assistant message as the policy samples it behind the generation prompt, stop token included.
std::vector<TextPiece> render_turn(ChatFamily family, const nlohmann::ordered_json& message,
                                   const ChatOptions& options);

ToolCallSyntax tool_call_syntax(ChatFamily family);

// Tokens that end a model turn; the first is the template's own.
std::span<const std::string_view> stop_tokens(ChatFamily family);

}  // namespace rollcall
