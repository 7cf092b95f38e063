// SPDX-License-Identifier: Apache-2.0
#include "rollcall/model_text_commands.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comms/error.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "model/tool_call_parser.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

// The value of an optional key; an input Error if it has another type.
template <typename T>
T option(const ordered_json& row, const char* key, T missing) {
  const auto value = row.find(key);
  if (value == row.end() || value->is_null()) return missing;
  try {
    return value->get<T>();
  } catch (const ordered_json::exception&) {
    throw input_error(std::string("'") + key + "' is " + value->type_name());
  }
}

void require(const ordered_json& row, const char* key) {
  if (!row.contains(key)) throw input_error(std::string("'") + key + "' is missing");
}

ordered_json id_of(const ordered_json& row) {
  const auto id = row.is_object() ? row.find("id") : row.end();
  const bool usable = row.is_object() && id != row.end() && (id->is_string() || id->is_number());
  return usable ? *id : ordered_json();
}

ordered_json error_row(const ordered_json& id, const char* kind, const char* message) {
  return {{"id", id}, {"error", {{"kind", kind}, {"message", message}}}};
}

std::string dump(const ordered_json& row) {
  return row.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

template <typename Answer>
std::string answer_line(const std::string& line, const Answer& answer) {
  ordered_json id;
  try {
    const ordered_json row = ordered_json::parse(line);
    id = id_of(row);
    if (!row.is_object()) throw input_error("the line is not a JSON object");
    return answer(row, id);
  } catch (const ordered_json::exception& e) {
    return dump(error_row(id, "invalid_json", e.what()));
  } catch (const Error& e) {
    return dump(error_row(id, "invalid_input", e.what()));
  }
}

// `answer` gives the text of one JSON object for a parsed line and its id.
template <typename Answer>
int answer_lines(const std::filesystem::path& jsonl, std::ostream& out, const Answer& answer) {
  std::ifstream in(jsonl, std::ios::binary);
  if (!in) throw input_error(jsonl.string() + " cannot be read");
  for (std::string line; std::getline(in, line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    out << answer_line(line, answer) << '\n';
  }
  out.flush();
  return 0;
}

std::vector<std::int32_t> ids_of(const ordered_json& value) {
  if (!value.is_array()) throw input_error("'ids' is not a list");
  std::vector<std::int32_t> ids;
  for (const ordered_json& id : value) {
    if (!id.is_number_integer() || id < std::numeric_limits<std::int32_t>::min() ||
        id > std::numeric_limits<std::int32_t>::max()) {
      throw input_error("'ids' holds something that is no token id");
    }
    ids.push_back(id.get<std::int32_t>());
  }
  return ids;
}

ordered_json tokenize_row(const Tokenizer& tokenizer, const ordered_json& row) {
  if (row.contains("ids")) {
    const auto ids = ids_of(row["ids"]);
    return {{"text", tokenizer.decode(ids, option(row, "skip_special_tokens", false))}};
  }
  const auto text = option<std::string>(row, "text", "");
  const auto ids = tokenizer.encode(text, option(row, "match_added_tokens", true));
  return {{"ids", ids}, {"text", tokenizer.decode(ids)}};
}

std::string text_of_pieces(const std::vector<TextPiece>& pieces) {
  std::string text;
  for (const TextPiece& piece : pieces) text += piece.text;
  return text;
}

Messages items_of(const ordered_json& row, const char* key) {
  const auto value = row.find(key);
  if (value == row.end() || value->is_null()) return {};
  if (!value->is_array()) throw input_error(std::string("'") + key + "' is not a list");
  return value->get_ref<const ordered_json::array_t&>();
}

ordered_json render_row(ChatFamily family, const Tokenizer& tokenizer, const ordered_json& row) {
  ChatOptions options;
  options.enable_thinking = option(row, "enable_thinking", true);
  options.date_string = option(row, "date_string", options.date_string);
  const Messages messages = items_of(row, "messages");
  const Messages tools = items_of(row, "tools");
  const auto chat =
      render_chat(family, messages, tools, options, option(row, "add_generation_prompt", true));
  ordered_json out{{"text", text_of_pieces(chat.pieces)}, {"ids", tokenizer.encode(chat.pieces)}};
  for (const ChatDelta& delta : render_deltas(family, messages, tools, options)) {
    out["deltas"].push_back({{"after_message", delta.after_message},
                             {"text", text_of_pieces(delta.pieces)},
                             {"ids", tokenizer.encode(delta.pieces)}});
  }
  return out;
}

// The syntax that a row asks for, or the template's; the template is read only when needed.
class SyntaxChoice {
 public:
  explicit SyntaxChoice(std::filesystem::path dir) : dir_(std::move(dir)) {}

  ToolCallSyntax of(const ordered_json& row) {
    const auto format = option<std::string>(row, "format", "");
    if (format == "hermes") return ToolCallSyntax::kHermes;
    if (format == "llama3_json") return ToolCallSyntax::kLlama3Json;
    if (!format.empty()) throw input_error("format '" + format + "' is not known");
    if (!of_template_) of_template_ = tool_call_syntax(chat_family(read_chat_template(dir_)));
    return *of_template_;
  }

 private:
  std::filesystem::path dir_;
  std::optional<ToolCallSyntax> of_template_;
};

std::string_view without_stop_token(std::string_view text) {
  for (const ChatFamily family : {ChatFamily::kQwen3, ChatFamily::kLlama31}) {
    for (const std::string_view token : stop_tokens(family)) {
      if (text.ends_with(token)) return text.substr(0, text.size() - token.size());
    }
  }
  return text;
}

// One line, values as the model wrote them: line breaks in JSON stand only between its tokens.
std::string on_one_line(std::string json_text) {
  std::ranges::replace(json_text, '\n', ' ');
  std::ranges::replace(json_text, '\r', ' ');
  return json_text;
}

std::string parsed_line(const ordered_json& id, const ParsedTurn& turn) {
  std::string line = "{\"id\":" + dump(id) + ",\"calls\":[";
  for (const ToolCall& call : turn.calls) {
    if (line.back() == '}') line += ',';
    line += "{\"name\":" + dump(call.name) + ",\"arguments\":" + on_one_line(call.arguments) + "}";
  }
  const ordered_json error = turn.error ? ordered_json{{"kind", turn.error->kind},
                                                       {"offset", turn.error->offset},
                                                       {"message", turn.error->message}}
                                        : ordered_json();
  return line + "],\"content\":" + dump(turn.content) + ",\"error\":" + dump(error) + "}";
}

std::string with_id(const ordered_json& id, const ordered_json& answer) {
  ordered_json out{{"id", id}};
  out.update(answer);
  return dump(out);
}

}  // namespace

int run_model_tokenize(const std::filesystem::path& dir, const std::filesystem::path& jsonl,
                       std::ostream& out) {
  const Tokenizer tokenizer(dir / "tokenizer.json");
  return answer_lines(jsonl, out, [&](const ordered_json& row, const ordered_json& id) {
    if (!row.contains("ids")) require(row, "text");
    return with_id(id, tokenize_row(tokenizer, row));
  });
}

int run_model_render(const std::filesystem::path& dir, const std::filesystem::path& jsonl,
                     std::ostream& out) {
  const ChatFamily family = chat_family(read_chat_template(dir));
  const Tokenizer tokenizer(dir / "tokenizer.json");
  return answer_lines(jsonl, out, [&](const ordered_json& row, const ordered_json& id) {
    return with_id(id, render_row(family, tokenizer, row));
  });
}

int run_model_parse(const std::filesystem::path& dir, const std::filesystem::path& jsonl,
                    std::ostream& out) {
  SyntaxChoice choice(dir);
  return answer_lines(jsonl, out, [&](const ordered_json& row, const ordered_json& id) {
    require(row, "text");
    const auto text = option<std::string>(row, "text", "");
    return parsed_line(id, parse_tool_calls(choice.of(row), without_stop_token(text)));
  });
}

}  // namespace rollcall
