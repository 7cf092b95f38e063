// SPDX-License-Identifier: Apache-2.0
#include "model/unicode.h"

#include <algorithm>
#include <cstdint>

namespace rollcall {
namespace {

struct Lead {
  std::size_t length;  // 0: no sequence begins with this byte
  std::uint8_t second_first = 0x80;
  std::uint8_t second_last = 0xBF;
};

// Well-formed byte sequences: Unicode 3.9, table 3-7.
Lead lead_of(std::uint8_t byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

struct Sequence {
  std::size_t length;  // bytes of the code point, or of the maximal invalid part
  bool valid;
};

Sequence sequence_at(std::string_view bytes, std::size_t position) {
  const Lead lead = lead_of(static_cast<std::uint8_t>(bytes[position]));
  if (lead.length == 0) return {1, false};
  for (std::size_t i = 1; i < lead.length; ++i) {
    const auto low = i == 1 ? lead.second_first : std::uint8_t{0x80};
    const auto high = i == 1 ? lead.second_last : std::uint8_t{0xBF};
    if (position + i >= bytes.size()) return {i, false};
    const auto byte = static_cast<std::uint8_t>(bytes[position + i]);
    if (byte < low || byte > high) return {i, false};
  }
  return {lead.length, true};
}

}  // namespace

CodePoint code_point_at(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[position + i]); };
  const std::uint8_t first = byte(0);
  if (first < 0x80) return {first, position + 1};
  if (first < 0xE0) return {char32_t(first & 0x1F) << 6 | (byte(1) & 0x3F), position + 2};
  if (first < 0xF0) {
    return {char32_t(first & 0x0F) << 12 | char32_t(byte(1) & 0x3F) << 6 | (byte(2) & 0x3F),
            position + 3};
  }
  return {char32_t(first & 0x07) << 18 | char32_t(byte(1) & 0x3F) << 12 |
              char32_t(byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          position + 4};
}

CodePoint code_point_before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while ((static_cast<std::uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return {code_point_at(text, begin).value, begin};
}

void append_utf8(std::string& text, char32_t code_point) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

std::optional<std::size_t> invalid_utf8_position(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const Sequence sequence = sequence_at(text, i);
    if (!sequence.valid) return i;
    i += sequence.length;
  }
  return std::nullopt;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t i = 0; i < bytes.size();) {
    const Sequence sequence = sequence_at(bytes, i);
    text.append(sequence.valid ? bytes.substr(i, sequence.length) : "\xEF\xBF\xBD");
    i += sequence.length;
  }
  return text;
}

std::size_t unfinished_utf8(std::string_view bytes) {
  for (std::size_t count = std::min<std::size_t>(3, bytes.size()); count > 0; --count) {
    const std::size_t begin = bytes.size() - count;
    const bool may_go_on = lead_of(static_cast<std::uint8_t>(bytes[begin])).length > count;
    if (may_go_on && sequence_at(bytes, begin).length == count) return count;
  }
  return 0;
}

bool is_in(UnicodeClass name, char32_t code_point) {
  const auto ranges = ranges_of(name);
  const auto after = std::ranges::upper_bound(ranges, code_point, {}, &CodePointRange::first);
  return after != ranges.begin() && code_point <= std::prev(after)->last;
}

}  // namespace rollcall
