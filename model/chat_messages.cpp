// SPDX-License-Identifier: Apache-2.0
#include "model/chat_messages.h"

#include <nlohmann/json.hpp>
#include <string>

#include "comms/error.h"
#include "model/chat_pieces.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

// Chat completions say text, Responses input_text and output_text.
bool is_text_part(const ordered_json& part) {
  const ordered_json& type = member(part, "type");
  return (type == "text" || type == "input_text" || type == "output_text") &&
         member(part, "text").is_string();
}

std::string joined_text(const ordered_json& parts, const std::string& place) {
  std::string text;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!is_text_part(parts[i])) {
      const ordered_json& type = member(parts[i], "type");
      throw input_error(
          place + ".content[" + std::to_string(i) + "] is " +
              (type.is_string() ? "of type " + type.dump(-1, ' ', false,
                                                         ordered_json::error_handler_t::replace)
                                : "a part without a type") +
              ", no text",
          "only text can be asked and trained: leave this part, or its row, out");
    }
    text += parts[i]["text"].get_ref<const std::string&>();
  }
  return text;
}

}  // namespace

ordered_json plain_message(const ordered_json& message, std::size_t index) {
  ordered_json plain = message;
  if (has_role(plain, "developer")) plain["role"] = "system";
  const ordered_json& content = member(message, "content");
  if (content.is_array())
    plain["content"] = joined_text(content, "messages[" + std::to_string(index) + "]");
  return plain;
}

ordered_json plain_messages(const ordered_json& messages) {
  if (!messages.is_array()) return messages;
  ordered_json plain = ordered_json::array();
  for (const ordered_json& message : messages)
    plain.push_back(plain_message(message, plain.size()));
  return plain;
}

}  // namespace rollcall
