// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

// A part of a prompt. Control tokens come from trusted parts alone.
struct TextPiece {
  std::string text;
  bool trusted = false;
};

// Byte-level BPE as described by a Hugging Face tokenizer.json. Immutable after construction;
// thread-safe. No BOS or other template token is ever added.
class Tokenizer {
 public:
  // Throws an input Error naming the component of tokenizer.json that is unknown or inconsistent.
  explicit Tokenizer(const std::filesystem::path& tokenizer_json);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // `match_added_tokens` false treats look-alikes of control tokens as plain text: what every text
  // from users, tools and tool schemas must be encoded with. Text must be valid UTF-8, else Error.
  std::vector<std::int32_t> encode(std::string_view text, bool match_added_tokens) const;

  // One prompt from its pieces: added tokens are matched inside runs of trusted pieces only, and
  // each run of text between two of them is encoded at once, matching off.
  std::vector<std::int32_t> encode(std::span<const TextPiece> pieces) const;

  // Bytes of the ids; unknown ids give nothing.
  std::string bytes_of(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;
  // The same with invalid UTF-8 replaced by U+FFFD.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special_tokens = false) const;

  std::optional<std::int32_t> token_id(std::string_view added_or_vocabulary_token) const;
  std::int32_t size() const;  // largest id + 1; logits from here on are padding and never sampled

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

// Decodes ids as they come: tokens end within characters, so what more bytes could finish is held
// back. All that add() and finish() return, joined, is what decode() gives for all ids. Refers to
// the tokenizer.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::string add(std::span<const std::int32_t> ids);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string unfinished_;
};

}  // namespace rollcall
