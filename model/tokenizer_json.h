// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/added_tokens.h"
#include "model/bpe.h"
#include "model/pre_tokenizer.h"

namespace rollcall {

// What a tokenizer.json says, checked and ready to use.
struct TokenizerDefinition {
  std::unordered_map<std::string, std::int32_t> ids;        // the vocabulary, as the file spells it
  std::unordered_map<std::string, std::int32_t> added_ids;  // added tokens that it lacks
  std::vector<std::string> bytes;                           // by id; empty where there is no token
  std::vector<AddedToken> added_tokens;
  std::array<std::int32_t, 256> byte_ids{};  // -1: no token for that byte
  Bpe::Merges merges;
  PreTokenizer pre_tokenizer = PreTokenizer::kGpt2;
  bool nfc = false;
  bool ignore_merges = false;  // a word that is a token is that token, whatever the merges say

  // The id of a token of the vocabulary or an added one.
  std::optional<std::int32_t> id_of(const std::string& token) const;
};

// Throws an input Error naming the component that is unknown, malformed or inconsistent.
TokenizerDefinition parse_tokenizer_json(std::string_view text);

// The same for a file; the Error names it. Refused too where a tokenizer_config.json beside it
// declares tokens that the file lacks.
TokenizerDefinition read_tokenizer_json(const std::filesystem::path& file);

// The word as the vocabulary spells it: one printable character a byte (GPT-2's byte alphabet).
std::string spell_bytes(std::string_view bytes);

}  // namespace rollcall
