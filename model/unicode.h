// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "model/unicode_tables.h"

namespace rollcall {

struct CodePoint {
  char32_t value;
  std::size_t end;  // byte position behind it
};

// The code point at byte `position` of valid UTF-8.
CodePoint code_point_at(std::string_view text, std::size_t position);

// The code point that ends at byte `end` > 0 of valid UTF-8; `end` of the result is where it
// begins.
CodePoint code_point_before(std::string_view text, std::size_t end);

void append_utf8(std::string& text, char32_t code_point);

// Position of the first byte that is no part of valid UTF-8; none if all of it is valid.
std::optional<std::size_t> invalid_utf8_position(std::string_view text);

// Each maximal invalid part (Unicode 3.9, table 3-8) becomes one U+FFFD.
std::string replace_invalid_utf8(std::string_view bytes);

// How many bytes at the end (0 to 3) are the beginning of a character that more bytes could finish.
std::size_t unfinished_utf8(std::string_view bytes);

bool is_in(UnicodeClass name, char32_t code_point);

// NFC by the tables of Unicode 9, as the reference tokenizers do: marks that were assigned later
// are starters, and later characters neither decompose nor compose. Takes valid UTF-8.
std::string nfc(std::string_view text);

}  // namespace rollcall
