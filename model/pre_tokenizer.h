// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace rollcall {

// How text is cut into words before BPE. Each is one regular expression (or the Digits splitter and
// one) that published tokenizers use; scanned by hand: linear time, no limits, exact Unicode
// tables.
enum class PreTokenizer : std::uint8_t {
  kQwen,        // Qwen2, Qwen2.5, Qwen3: single digits
  kLlama3,      // Llama-3, SmolLM3: up to three digits
  kTekken,      // Mistral's later ones: words begin where the case changes
  kGpt2,        // ByteLevel's own expression
  kDigitsGpt2,  // SmolLM2: every digit alone, then GPT-2's expression on each part
};

// The pre-tokenizer with this Split pattern, compared as text.
std::optional<PreTokenizer> pre_tokenizer_of_pattern(std::string_view regex);

// The words of valid UTF-8, in order; joined they are the text.
std::vector<std::string_view> words_of(PreTokenizer kind, std::string_view text);

}  // namespace rollcall
