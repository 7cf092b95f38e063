// SPDX-License-Identifier: Apache-2.0
#include "model/chat_format.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "comms/error.h"
#include "model/chat_messages.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "model/tool_call_parser.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;
using Ids = std::vector<std::int32_t>;

Messages items_of(const ordered_json& list, const char* what) {
  if (list.is_null()) return {};
  if (!list.is_array()) throw input_error(std::string(what) + " is not a JSON array");
  return list.get_ref<const ordered_json::array_t&>();
}

Ids find_stop_ids(ChatFamily family, const Tokenizer& tokenizer) {
  Ids ids;
  for (const std::string_view token : stop_tokens(family)) {
    if (const auto id = tokenizer.token_id(token)) {
      ids.push_back(*id);
    } else if (ids.empty()) {
      throw input_error("tokenizer.json has no token " + std::string(token) +
                            ", which the chat template ends its turns with",
                        "use the tokenizer and the chat template of the same checkpoint");
    }
  }
  return ids;
}

class TemplateFormat : public ChatFormat {
 public:
  TemplateFormat(ChatFamily family, const Tokenizer& tokenizer, ChatOptions options)
      : family_(family),
        tokenizer_(tokenizer),
        options_(std::move(options)),
        stop_ids_(find_stop_ids(family, tokenizer)) {}

  Ids render_prompt(const ordered_json& messages, const ordered_json& tools) const override {
    const ordered_json plain = plain_messages(messages);
    const RenderedChat chat =
        render_chat(family_, items_of(plain, "messages"), items_of(tools, "tools"), options_, true);
    return tokenizer_.encode(chat.pieces);
  }

  Ids render_tool_results(std::span<const std::string> outputs, bool end_turn) const override {
    Ids ids = tokenizer_.encode(render_results(family_, outputs, options_));
    if (end_turn) ids.insert(ids.begin(), stop_ids_.front());
    return ids;
  }

  ParsedTurn parse(std::string_view turn_text) const override {
    return parse_tool_calls(tool_call_syntax(family_), turn_text);
  }

  std::span<const std::int32_t> stop_ids() const override { return stop_ids_; }

  Ids render_assistant(const ordered_json& message) const override {
    return tokenizer_.encode(render_turn(family_, plain_message(message, 0), options_));
  }

 private:
  ChatFamily family_;
  const Tokenizer& tokenizer_;
  ChatOptions options_;
  Ids stop_ids_;
};

}  // namespace

std::unique_ptr<ChatFormat> make_chat_format(const std::filesystem::path& dir,
                                             const Tokenizer& tokenizer,
                                             const ChatOptions& options) {
  const ChatFamily family = chat_family(read_chat_template(dir));
  return std::make_unique<TemplateFormat>(family, tokenizer, options);
}

}  // namespace rollcall
