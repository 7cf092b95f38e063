// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

class Tokenizer;

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON object text, as the policy wrote it
};

// Why a turn's tool calls could not be read. An event of the agent's, never an exception.
struct ParseError {
  std::string kind;  // invalid_json, not_object, missing_name, missing_arguments, bad_arguments,
                     // unclosed, unclosed_think
  std::size_t offset = 0;  // byte offset of the bad block in the turn's text
  std::string message;
};

struct ParsedTurn {
  std::vector<ToolCall> calls;  // empty if error
  std::string content;          // visible text before the first call
  std::size_t content_end = 0;  // byte offset of the first call in the turn's text, or its size
  std::optional<ParseError> error;
};

struct ChatOptions {
  bool enable_thinking = true;  // false: Qwen3 gets an empty thought in its prompt
  std::string date_string =
      "26 Jul 2024";  // Llama-3.x: never today's date, prompts must not change
};

// A chat template in C++: chosen by the fingerprint of the checkpoint's template, never by name.
// Immutable; thread-safe. Control tokens come from the template alone; text from users, tools and
// schemas is encoded with added-token matching off.
class ChatFormat {
 public:
  virtual ~ChatFormat() = default;

  // The whole prompt up to and including the generation prompt. `messages` and `tools` in OpenAI
  // form: `developer` counts as `system`, text parts are joined. Throws an input Error where the
  // template would raise.
  virtual std::vector<std::int32_t> render_prompt(const nlohmann::ordered_json& messages,
                                                  const nlohmann::ordered_json& tools) const = 0;

  // What follows an assistant turn's stop token: tool results in call order, then the next
  // generation prompt. `end_turn` adds the missing stop token first (a turn cut by its budget).
  virtual std::vector<std::int32_t> render_tool_results(std::span<const std::string> outputs,
                                                        bool end_turn) const = 0;

  // Reads one model turn; a trailing stop token's text must already be dropped.
  virtual ParsedTurn parse(std::string_view turn_text) const = 0;

  // The ids that end a model turn; the first is the one that render_tool_results adds.
  virtual std::span<const std::int32_t> stop_ids() const = 0;

  // An assistant turn as the policy would have to sample it (stop token included): for
  // demonstrations.
  virtual std::vector<std::int32_t> render_assistant(
      const nlohmann::ordered_json& message) const = 0;
};

// Reads the chat template of DIR (tokenizer_config.json, overridden by chat_template.jinja) and
// returns the format with that fingerprint. Throws an input Error with the fingerprint and what to
// do for an unknown template. `tokenizer` must outlive the result.
std::unique_ptr<ChatFormat> make_chat_format(const std::filesystem::path& dir,
                                             const Tokenizer& tokenizer,
                                             const ChatOptions& options = {});

}  // namespace rollcall
