// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "comms/error.h"
#include "model/bpe.h"
#include "model/tokenizer_json.h"
#include "model/unicode.h"

namespace rollcall {
namespace {

std::vector<AddedToken> with_normalized(const TokenizerDefinition& definition, bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : definition.added_tokens) {
    if (token.normalized != normalized) continue;
    if (normalized && definition.nfc) token.content = nfc(token.content);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

void check_text(std::string_view text) {
  if (text.size() > std::numeric_limits<std::int32_t>::max()) {
    throw input_error("a text of " + std::to_string(text.size()) + " bytes is too long to encode");
  }
  if (const auto position = invalid_utf8_position(text)) {
    throw input_error("a text to encode is not valid UTF-8 at byte " + std::to_string(*position),
                      "replace invalid bytes by U+FFFD first");
  }
}

using Ids = std::vector<std::int32_t>;

// Calls `on_text` for what lies between the matches and appends the matches' ids, in order.
template <typename OnText>
void cut(std::string_view text, const std::vector<AddedTokenMatch>& matches, Ids& ids,
         const OnText& on_text) {
  std::size_t begin = 0;
  for (const auto& [span, id] : matches) {
    if (span.begin > begin) on_text(text.substr(begin, span.begin - begin));
    ids.push_back(id);
    begin = span.end;
  }
  if (begin < text.size()) on_text(text.substr(begin));
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(TokenizerDefinition d)
      : raw_tokens(with_normalized(d, false)),
        normalized_tokens(with_normalized(d, true)),
        all_tokens(d.added_tokens),
        bpe(d.byte_ids, std::exchange(d.merges, {})),
        definition(std::move(d)),
        is_special(definition.bytes.size()) {
    for (const AddedToken& token : definition.added_tokens) {
      is_special[static_cast<std::size_t>(token.id)] = token.special;
    }
  }

  std::string normalize(std::string_view text) const {
    return definition.nfc ? nfc(text) : std::string(text);
  }

  void encode_word(std::string_view word, Ids& ids) const {
    if (definition.ignore_merges) {
      const auto whole = definition.ids.find(spell_bytes(word));
      if (whole != definition.ids.end()) return ids.push_back(whole->second);
    }
    bpe.encode(word, ids);
  }

  // `text` is normalised.
  void encode_words(std::string_view text, Ids& ids) const {
    for (const std::string_view word : words_of(definition.pre_tokenizer, text)) {
      encode_word(word, ids);
    }
  }

  void encode_plain(std::string_view text, Ids& ids) const { encode_words(normalize(text), ids); }

  void encode_matching(std::string_view text, Ids& ids) const {
    cut(text, raw_tokens.find(text), ids, [&](std::string_view raw_part) {
      const std::string part = normalize(raw_part);
      cut(part, normalized_tokens.find(part), ids,
          [&](std::string_view plain) { encode_words(plain, ids); });
    });
  }

  AddedTokenFinder raw_tokens;         // looked for first, in the raw text
  AddedTokenFinder normalized_tokens;  // then in the normalised text between those
  AddedTokenFinder all_tokens;
  Bpe bpe;
  TokenizerDefinition definition;
  std::vector<bool> is_special;  // by id
};

Tokenizer::Tokenizer(const std::filesystem::path& tokenizer_json)
    : impl_(std::make_unique<const Impl>(read_tokenizer_json(tokenizer_json))) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Ids Tokenizer::encode(std::string_view text, bool match_added_tokens) const {
  check_text(text);
  Ids ids;
  if (match_added_tokens) {
    impl_->encode_matching(text, ids);
  } else {
    impl_->encode_plain(text, ids);
  }
  return ids;
}

Ids Tokenizer::encode(std::span<const TextPiece> pieces) const {
  Ids ids;
  std::string run;  // text since the last control token
  const auto flush = [&] {
    check_text(run);
    impl_->encode_plain(run, ids);
    run.clear();
  };
  for (std::size_t i = 0; i < pieces.size();) {
    if (!pieces[i].trusted) {
      run += pieces[i++].text;
      continue;
    }
    std::string trusted;
    while (i < pieces.size() && pieces[i].trusted) trusted += pieces[i++].text;
    std::size_t begin = 0;
    for (const auto& [span, id] : impl_->all_tokens.find_contents(trusted)) {
      run.append(trusted, begin, span.begin - begin);
      flush();
      ids.push_back(id);
      begin = span.end;
    }
    run.append(trusted, begin);
  }
  flush();
  return ids;
}

std::string Tokenizer::bytes_of(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= size()) continue;
    const auto index = static_cast<std::size_t>(id);
    if (!skip_special_tokens || !impl_->is_special[index]) bytes += impl_->definition.bytes[index];
  }
  return bytes;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special_tokens) const {
  return replace_invalid_utf8(bytes_of(ids, skip_special_tokens));
}

std::optional<std::int32_t> Tokenizer::token_id(std::string_view token) const {
  return impl_->definition.id_of(std::string(token));
}

std::int32_t Tokenizer::size() const {
  return static_cast<std::int32_t>(impl_->definition.bytes.size());
}

std::string TextStream::add(std::span<const std::int32_t> ids) {
  std::string bytes = std::exchange(unfinished_, {}) + tokenizer_.bytes_of(ids);
  unfinished_ = bytes.substr(bytes.size() - unfinished_utf8(bytes));
  bytes.resize(bytes.size() - unfinished_.size());
  return replace_invalid_utf8(bytes);
}

std::string TextStream::finish() { return replace_invalid_utf8(std::exchange(unfinished_, {})); }

}  // namespace rollcall
