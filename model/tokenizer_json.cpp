// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer_json.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "comms/error.h"
#include "comms/log.h"
#include "model/unicode.h"

namespace rollcall {
namespace {

using nlohmann::json;

constexpr std::int64_t kLargestId =
    (1 << 24) - 1;  // bounds the tables that a broken file can ask for

// Byte -> the code point that stands for it: printable Latin-1 for itself, the rest from U+0100 on.
std::array<char32_t, 256> make_byte_alphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF);
    alphabet[byte] = printable && byte != 0xAD ? byte : next++;
  }
  return alphabet;
}

// The bytes that a token stands for; nothing if it has a character outside the byte alphabet.
class ByteAlphabet {
 public:
  ByteAlphabet() : code_points_(make_byte_alphabet()) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      bytes_[code_points_[byte]] = static_cast<char>(byte);
    }
  }

  std::optional<std::string> bytes_of(std::string_view token) const {
    std::string bytes;
    for (std::size_t i = 0; i < token.size();) {
      const CodePoint point = code_point_at(token, i);
      const auto byte = bytes_.find(point.value);
      if (byte == bytes_.end()) return std::nullopt;
      bytes.push_back(byte->second);
      i = point.end;
    }
    return bytes;
  }

  std::string token_of(std::string_view bytes) const {
    std::string token;
    for (const char c : bytes) append_utf8(token, code_points_[static_cast<std::uint8_t>(c)]);
    return token;
  }

 private:
  std::array<char32_t, 256> code_points_;
  std::map<char32_t, char> bytes_;
};

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

bool is_unset(const json& object, const char* key) {
  const auto value = object.find(key);
  return value == object.end() || value->is_null() ||
         (value->is_string() && value->get_ref<const std::string&>().empty()) ||
         (value->is_number() && *value == 0);
}

// The member, or null.
const json& member(const json& object, const char* key) {
  static const json kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

bool flag(const json& object, const char* key, bool missing = false) {
  const auto value = object.find(key);
  if (value == object.end() || value->is_null()) return missing;
  if (!value->is_boolean()) throw input_error(std::string("'") + key + "' is not true or false");
  return value->get<bool>();
}

std::string type_of(const json& component) {
  const auto type = component.is_object() ? component.find("type") : component.end();
  if (!component.is_object() || type == component.end() || !type->is_string()) return "(no type)";
  return type->get<std::string>();
}

Error unsupported(const std::string& part, const std::string& what) {
  return input_error(part + " " + what + " is not supported",
                     "use a byte-level BPE tokenizer of the Qwen, Llama-3, SmolLM or GPT-2 kind");
}

std::int32_t checked_id(const json& value, const std::string& token) {
  if (!value.is_number_integer() || value < 0 || value > kLargestId) {
    throw input_error("id of token '" + token + "' is not an integer from 0 to 2^21-1");
  }
  return value.get<std::int32_t>();
}

// Reads the parts of one file into a definition. Single use. The post-processor is left unread: it
// only adds tokens around a text, which nobody asks for here.
class Reader {
 public:
  explicit Reader(const json& root) : root_(root) {}

  TokenizerDefinition read() {
    if (!root_.is_object()) throw input_error("the file is not a JSON object");
    read_normalizer(member(root_, "normalizer"));
    read_pre_tokenizer(member(root_, "pre_tokenizer"));
    read_decoder(member(root_, "decoder"));
    read_model(member(root_, "model"));
    read_added_tokens(member(root_, "added_tokens"));
    return std::move(out_);
  }

 private:
  void read_normalizer(const json& normalizer) {
    if (normalizer.is_null()) return;
    const std::string type = type_of(normalizer);
    if (type == "NFC") {
      out_.nfc = true;
    } else if (type == "Sequence" && normalizer.contains("normalizers") &&
               normalizer["normalizers"].is_array()) {
      for (const json& step : normalizer["normalizers"]) {
        if (type_of(step) != "NFC") throw unsupported("normalizer", type_of(step));
        out_.nfc = true;
      }
    } else {
      throw unsupported("normalizer", type);
    }
  }

  void check_byte_level(const json& step, bool use_regex) const {
    if (type_of(step) != "ByteLevel") throw unsupported("pre_tokenizer", type_of(step));
    if (flag(step, "add_prefix_space", true)) {
      throw unsupported("pre_tokenizer ByteLevel", "with add_prefix_space");
    }
    if (flag(step, "use_regex", true) != use_regex) {
      throw unsupported("pre_tokenizer ByteLevel",
                        use_regex ? "without use_regex here" : "with use_regex behind Split");
    }
  }

  PreTokenizer split_kind(const json& split) const {
    const auto pattern = split.find("pattern");
    if (pattern == split.end() || !pattern->is_object() || !pattern->contains("Regex") ||
        !(*pattern)["Regex"].is_string()) {
      throw unsupported("pre_tokenizer Split", "without a Regex pattern");
    }
    const auto& regex = (*pattern)["Regex"].get_ref<const std::string&>();
    const auto kind = pre_tokenizer_of_pattern(regex);
    if (!kind) throw unsupported("pre_tokenizer Split", "with the pattern " + regex);
    if (member(split, "behavior") != "Isolated" || flag(split, "invert")) {
      throw unsupported("pre_tokenizer Split", "with other behavior than Isolated");
    }
    return *kind;
  }

  void read_pre_tokenizer(const json& pre) {
    json steps = json::array({pre});
    if (type_of(pre) == "Sequence") steps = member(pre, "pretokenizers");
    if (!steps.is_array() || steps.empty() || steps.size() > 2) {
      throw unsupported("pre_tokenizer", "Sequence of that length");
    }
    const std::string first = type_of(steps.front());
    if (steps.size() == 1) {
      check_byte_level(steps.front(), true);
      out_.pre_tokenizer = PreTokenizer::kGpt2;
    } else if (first == "Split") {
      out_.pre_tokenizer = split_kind(steps.front());
      check_byte_level(steps.back(), false);
    } else if (first == "Digits") {
      if (!flag(steps.front(), "individual_digits")) {
        throw unsupported("pre_tokenizer Digits", "without individual_digits");
      }
      out_.pre_tokenizer = PreTokenizer::kDigitsGpt2;
      check_byte_level(steps.back(), true);
    } else {
      throw unsupported("pre_tokenizer", first);
    }
  }

  void read_decoder(const json& decoder) const {
    if (type_of(decoder) != "ByteLevel") throw unsupported("decoder", type_of(decoder));
  }

  void read_model(const json& model) {
    if (!model.is_object()) throw input_error("model is missing");
    if (model.contains("type") && model["type"] != "BPE")
      throw unsupported("model", type_of(model));
    for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!is_unset(model, key)) throw unsupported("model BPE", std::string("with ") + key);
    }
    if (flag(model, "byte_fallback")) throw unsupported("model BPE", "with byte_fallback");
    out_.ignore_merges = flag(model, "ignore_merges");
    read_vocabulary(member(model, "vocab"));
    find_byte_ids();
    const bool complete = std::ranges::find(out_.byte_ids, -1) == out_.byte_ids.end();
    if (!is_unset(model, "unk_token") && !complete) {
      throw unsupported("model BPE", "with unk_token and without a token for every byte");
    }
    read_merges(member(model, "merges"));
  }

  void read_vocabulary(const json& vocabulary) {
    if (!vocabulary.is_object() || vocabulary.empty()) {
      throw input_error("model.vocab is not an object with tokens");
    }
    for (const auto& [token, value] : vocabulary.items()) {
      const std::int32_t id = checked_id(value, token);
      place(token, id);
      out_.ids.emplace(token, id);
    }
    vocabulary_size_ = static_cast<std::int32_t>(vocabulary.size());
  }

  void place(const std::string& token, std::int32_t id) {
    const auto index = static_cast<std::size_t>(id);
    if (index >= out_.bytes.size()) {
      out_.bytes.resize(index + 1);
      used_.resize(index + 1);
    }
    if (used_[index]) {
      throw input_error("token '" + token + "' has id " + std::to_string(id) +
                        ", which another token has too");
    }
    used_[index] = true;
    out_.bytes[index] = byte_alphabet().bytes_of(token).value_or(token);
  }

  void find_byte_ids() {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      const auto found = out_.ids.find(spell_bytes({&c, 1}));
      out_.byte_ids[byte] = found == out_.ids.end() ? -1 : found->second;
    }
  }

  // "left right", or ["left", "right"] where tokens may hold spaces.
  static std::pair<std::string, std::string> merge_parts(const json& merge, std::size_t rank) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      return {merge[0].get<std::string>(), merge[1].get<std::string>()};
    }
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        return {text.substr(0, space), text.substr(space + 1)};
      }
    }
    throw input_error("model.merges[" + std::to_string(rank) + "] is not a pair of tokens");
  }

  std::int32_t merge_id(const std::string& token, std::size_t rank) const {
    const auto found = out_.ids.find(token);
    if (found != out_.ids.end()) return found->second;
    throw input_error("model.merges[" + std::to_string(rank) + "] needs token '" + token +
                      "', which model.vocab lacks");
  }

  void read_merges(const json& merges) {
    if (!merges.is_array()) throw input_error("model.merges is not a list");
    out_.merges.reserve(merges.size());
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      const auto [left, right] = merge_parts(merges[rank], rank);
      const auto key = bpe_pair(merge_id(left, rank), merge_id(right, rank));
      const std::int32_t joined = merge_id(left + right, rank);
      out_.merges[key] = {static_cast<std::uint32_t>(rank), joined};
    }
  }

  void read_added_tokens(const json& tokens) {
    if (tokens.is_null()) return;
    if (!tokens.is_array()) throw input_error("added_tokens is not a list");
    for (const json& token : tokens) out_.added_tokens.push_back(added_token(token));
    for (const AddedToken& token : out_.added_tokens) place_added(token);
  }

  static AddedToken added_token(const json& entry) {
    if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string() ||
        entry["content"].get_ref<const std::string&>().empty()) {
      throw input_error("added_tokens holds an entry without content");
    }
    AddedToken token;
    token.content = entry["content"].get<std::string>();
    token.id = checked_id(member(entry, "id"), token.content);
    token.special = flag(entry, "special");
    token.normalized = flag(entry, "normalized", !token.special);
    token.left_strip = flag(entry, "lstrip");
    token.right_strip = flag(entry, "rstrip");
    token.single_word = flag(entry, "single_word");
    return token;
  }

  // The reference gives an added token its vocabulary id, or the next free one, whatever the file
  // says; a file that says otherwise would mean different ids in different programs.
  void place_added(const AddedToken& token) {
    const std::optional<std::int32_t> known = out_.id_of(token.content);
    const std::int32_t expected = known.value_or(std::max(vocabulary_size_, last_added_ + 1));
    if (token.id != expected) {
      throw input_error("added token '" + token.content + "' has id " + std::to_string(token.id) +
                        " where it must be " + std::to_string(expected));
    }
    last_added_ = std::max(last_added_, token.id);
    if (known) return;
    place(token.content, token.id);
    out_.added_ids.emplace(token.content, token.id);
  }

  const json& root_;
  TokenizerDefinition out_;
  std::vector<bool> used_;  // by id
  std::int32_t vocabulary_size_ = 0;
  std::int32_t last_added_ = -1;
};

std::string read_bytes(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream || !std::filesystem::is_regular_file(file)) {
    throw input_error(file.string() + " cannot be read",
                      "point model.path at a Hugging Face directory with a tokenizer.json");
  }
  return {std::istreambuf_iterator<char>(stream), {}};
}

// tokenizer.json alone says what a token is, here as in most servers. transformers adds what only
// tokenizer_config.json declares: one token there, several here. Returns those.
std::vector<std::string> unknown_declared_tokens(const TokenizerDefinition& tokenizer,
                                                 const json& config) {
  std::vector<std::string> unknown;
  for (const auto& [id, token] : member(config, "added_tokens_decoder").items()) {
    const json& content = member(token, "content");
    if (!content.is_string()) continue;
    const auto known = tokenizer.id_of(content.get_ref<const std::string&>());
    if (!known) unknown.push_back(content.get<std::string>());
    if (!known || std::to_string(*known) == id) continue;
    throw input_error("added_tokens_decoder declares '" + content.get<std::string>() +
                          "' with id " + id + ", tokenizer.json gives it id " +
                          std::to_string(*known),
                      "load both with transformers, save_pretrained() again, and use that");
  }
  return unknown;
}

void warn_of(const std::vector<std::string>& unknown, const std::string& config_file) {
  if (unknown.empty()) return;
  std::string names;
  for (const auto& name : unknown) names += (names.empty() ? "'" : ", '") + name + "'";
  log_warning(config_file + ": added_tokens_decoder declares tokens that tokenizer.json does not " +
              "know, and that are text here: " + names +
              ". transformers would add them: if the model was trained with them, load both with "
              "transformers, save_pretrained() again, and use that");
}

}  // namespace

std::optional<std::int32_t> TokenizerDefinition::id_of(const std::string& token) const {
  for (const auto* tokens : {&ids, &added_ids}) {
    if (const auto found = tokens->find(token); found != tokens->end()) return found->second;
  }
  return std::nullopt;
}

TokenizerDefinition parse_tokenizer_json(std::string_view text) {
  try {
    const json root = json::parse(text);
    return Reader(root).read();
  } catch (const json::exception& e) {
    throw input_error(json_reason(e), "download tokenizer.json again");
  }
}

TokenizerDefinition read_tokenizer_json(const std::filesystem::path& file) {
  const std::string text = read_bytes(file);
  const auto config_file = file.parent_path() / "tokenizer_config.json";
  TokenizerDefinition tokenizer;
  try {
    tokenizer = parse_tokenizer_json(text);
  } catch (const Error& e) {
    throw input_error(file.string() + ": " + e.what(), e.what_to_do());
  }
  if (!std::filesystem::exists(config_file)) return tokenizer;
  try {
    warn_of(unknown_declared_tokens(tokenizer, json::parse(read_bytes(config_file))),
            config_file.string());
  } catch (const json::exception& e) {
    throw input_error(config_file.string() + ": " + json_reason(e), "download it again");
  } catch (const Error& e) {
    throw input_error(config_file.string() + ": " + e.what(), e.what_to_do());
  }
  return tokenizer;
}

std::string spell_bytes(std::string_view bytes) { return byte_alphabet().token_of(bytes); }

}  // namespace rollcall
