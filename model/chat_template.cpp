// SPDX-License-Identifier: Apache-2.0
#include "model/chat_template.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "comms/error.h"
#include "model/chat_pieces.h"
#include "model/unicode.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

struct KnownTemplate {
  std::string_view fingerprint;  // XXH3-128 of the text without trailing newlines (xxhsum -H128)
  ChatFamily family;
};

constexpr std::array<KnownTemplate, 7> kKnownTemplates{{
    {"e392aa06018503fd2469c9508f79506e", ChatFamily::kQwen25},
    {"4457e3d12b367a860283f874ff58d644", ChatFamily::kQwen3},
    {"0fab82ce8f4d5175c9e0155c80737cf2", ChatFamily::kQwen3Revised},
    {"cc9ddd5a40bc1c0c8fb5d937b1e8f5d0", ChatFamily::kQwen3Instruct2507},
    {"98f63cc3d421d28f99ab995e9629dacd", ChatFamily::kSmolLm2},
    {"9ddcd6cd71f96dd76ca7779b7730196a", ChatFamily::kLlama31},
    {"573e1bcc8c56f178c3d57e38f5ff0756", ChatFamily::kLlama32},
}};

std::string fingerprint_of(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits(text.data(), text.size()));
  std::string hex;
  for (const unsigned char byte : canonical.digest) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

std::string read_file(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    throw input_error(
        file.string() + " cannot be read",
        "the chat template is read from chat_template.jinja or tokenizer_config.json: "
        "copy that file of the checkpoint into this folder");
  return {std::istreambuf_iterator<char>(stream), {}};
}

// A string, or a list of named templates of which "default" is taken.
std::string template_in_config(const ordered_json& config, const std::filesystem::path& file) {
  const ordered_json& value = member(config, "chat_template");
  if (value.is_string()) return value.get<std::string>();
  for (const ordered_json& entry : value.is_array() ? value : ordered_json::array()) {
    if (member(entry, "name") == "default" && member(entry, "template").is_string()) {
      return entry["template"].get<std::string>();
    }
  }
  throw input_error(file.string() + " has no chat_template",
                    "use an instruction-tuned checkpoint, or copy its chat_template.jinja here");
}

void check_messages(Messages messages) {
  if (messages.empty()) throw input_error("messages is empty");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (!messages[i].is_object()) {
      throw input_error("messages[" + std::to_string(i) + "] is not an object");
    }
  }
}

bool is_llama(ChatFamily family) {
  return family == ChatFamily::kLlama31 || family == ChatFamily::kLlama32;
}

bool answers(const ordered_json& message) {
  return has_role(message, "tool") || has_role(message, "user");
}

std::size_t answers_end(Messages messages, std::size_t begin) {
  while (begin < messages.size() && answers(messages[begin])) ++begin;
  return begin;
}

std::vector<TextPiece> pieces_after(RenderedChat chat, std::size_t message) {
  const auto end =
      std::ranges::find(chat.turn_ends, message, &std::pair<std::size_t, std::size_t>::first);
  const auto first = end == chat.turn_ends.end() ? chat.pieces.size() : end->second;
  return {std::make_move_iterator(chat.pieces.begin() + static_cast<std::ptrdiff_t>(first)),
          std::make_move_iterator(chat.pieces.end())};
}

}  // namespace

PieceWriter& PieceWriter::add(std::string_view text, bool trusted) {
  chat_.pieces.push_back({std::string(text), trusted});
  return *this;
}

const ordered_json& member(const ordered_json& object, const char* key) {
  static const ordered_json kNull;
  const auto found = object.is_object() ? object.find(key) : object.end();
  return !object.is_object() || found == object.end() ? kNull : *found;
}

const std::string& text_of(const ordered_json& message, const char* key, std::size_t index) {
  const ordered_json& value = member(message, key);
  if (value.is_string()) return value.get_ref<const std::string&>();
  throw input_error("messages[" + std::to_string(index) + "]." + key + " is " +
                        (value.is_null() ? "missing" : value.type_name()) +
                        " where the chat template needs text",
                    "write it as a string");
}

bool has_role(const ordered_json& message, std::string_view role) {
  const ordered_json& value = member(message, "role");
  return value.is_string() && value.get_ref<const std::string&>() == role;
}

std::string_view python_strip(std::string_view text) {
  const auto is_space = [](char32_t c) {
    return is_in(UnicodeClass::kWhiteSpace, c) || (c >= 0x1C && c <= 0x1F);
  };
  while (!text.empty() && is_space(code_point_at(text, 0).value)) {
    text.remove_prefix(code_point_at(text, 0).end);
  }
  while (!text.empty() && is_space(code_point_before(text, text.size()).value)) {
    text = text.substr(0, code_point_before(text, text.size()).end);
  }
  return text;
}

std::string read_chat_template(const std::filesystem::path& dir) {
  if (std::filesystem::exists(dir / "chat_template.jinja")) {
    return read_file(dir / "chat_template.jinja");
  }
  const auto file = dir / "tokenizer_config.json";
  try {
    return template_in_config(ordered_json::parse(read_file(file)), file);
  } catch (const ordered_json::exception& e) {
    throw input_error(file.string() + ": " + json_reason(e),
                      "download tokenizer_config.json again");
  }
}

ChatFamily chat_family(std::string_view template_text) {
  const std::string fingerprint = fingerprint_of(template_text);
  const auto known = std::ranges::find(kKnownTemplates, std::string_view(fingerprint),
                                       &KnownTemplate::fingerprint);
  if (known != kKnownTemplates.end()) return known->family;
  throw input_error(
      "the checkpoint's chat template is not known (XXH3-128 " + fingerprint + ")",
      "known are the published templates of Qwen2.5-Instruct, Qwen3 (two revisions), "
      "Qwen3-Instruct-2507, SmolLM2-Instruct, Llama-3.1 and Llama-3.2-Instruct; put the one that "
      "the model was trained with into chat_template.jinja");
}

RenderedChat render_chat(ChatFamily family, Messages messages, Messages tools,
                         const ChatOptions& options, bool add_generation_prompt) {
  check_messages(messages);
  return is_llama(family) ? render_llama3(messages, tools, options, add_generation_prompt)
                          : render_chatml(family, messages, tools, options, add_generation_prompt);
}

std::vector<ChatDelta> render_deltas(ChatFamily family, Messages messages, Messages tools,
                                     const ChatOptions& options) {
  check_messages(messages);
  std::vector<ChatDelta> deltas;
  for (std::size_t i = 0; i + 1 < messages.size(); ++i) {
    if (!has_role(messages[i], "assistant") || !answers(messages[i + 1])) continue;
    const Messages step = messages.first(answers_end(messages, i + 1));
    deltas.push_back({i, pieces_after(render_chat(family, step, tools, options, true), i)});
  }
  return deltas;
}

std::vector<TextPiece> render_results(ChatFamily family, std::span<const std::string> outputs,
                                      const ChatOptions& options) {
  return is_llama(family) ? llama3_results(outputs) : chatml_results(family, outputs, options);
}

std::vector<TextPiece> render_turn(ChatFamily family, const ordered_json& message,
                                   const ChatOptions& options) {
  return is_llama(family) ? llama3_turn(message) : chatml_turn(family, message, options);
}

ToolCallSyntax tool_call_syntax(ChatFamily family) {
  return is_llama(family) ? ToolCallSyntax::kLlama3Json : ToolCallSyntax::kHermes;
}

std::span<const std::string_view> stop_tokens(ChatFamily family) {
  static constexpr std::array<std::string_view, 2> kChatml{"<|im_end|>", "<|endoftext|>"};
  static constexpr std::array<std::string_view, 3> kLlama3{"<|eot_id|>", "<|eom_id|>",
                                                           "<|end_of_text|>"};
  if (is_llama(family)) return kLlama3;
  return kChatml;
}

}  // namespace rollcall
