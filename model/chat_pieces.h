// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "model/chat_template.h"

namespace rollcall {

// Collects the pieces of one rendering. Single thread.
class PieceWriter {
 public:
  PieceWriter& trusted(std::string_view text) { return add(text, true); }
  PieceWriter& untrusted(std::string_view text) { return add(text, false); }

  // Says that the assistant message's stop token was just written.
  void end_turn(std::size_t message) { chat_.turn_ends.emplace_back(message, chat_.pieces.size()); }

  RenderedChat take() { return std::move(chat_); }

 private:
  PieceWriter& add(std::string_view text, bool trusted);

  RenderedChat chat_;
};

// The member of an object, or null.
const nlohmann::ordered_json& member(const nlohmann::ordered_json& object, const char* key);

// The string member `key` of a message. Throws an input Error "messages[i].key ..." for anything
// else.
const std::string& text_of(const nlohmann::ordered_json& message, const char* key,
                           std::size_t index);

bool has_role(const nlohmann::ordered_json& message, std::string_view role);

// Python's str.strip().
std::string_view python_strip(std::string_view text);

// The two template families; see the functions of the same purpose in chat_template.h.
RenderedChat render_chatml(ChatFamily, Messages, Messages tools, const ChatOptions&, bool prompt);
std::vector<TextPiece> chatml_results(ChatFamily, std::span<const std::string> outputs,
                                      const ChatOptions&);
std::vector<TextPiece> chatml_turn(ChatFamily, const nlohmann::ordered_json&, const ChatOptions&);

RenderedChat render_llama3(Messages, Messages tools, const ChatOptions&, bool prompt);
std::vector<TextPiece> llama3_results(std::span<const std::string> outputs);
std::vector<TextPiece> llama3_turn(const nlohmann::ordered_json& message);

}  // namespace rollcall
