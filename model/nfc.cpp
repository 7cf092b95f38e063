// SPDX-License-Identifier: Apache-2.0
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "comms/error.h"
#include "model/unicode.h"

namespace rollcall {
namespace {

// Blocks assigned after Unicode 9 that hold canonical compositions: Dives Akuru, Todhri,
// Tulu-Tigalari, Gurung Khema, Kirat Rai.
constexpr std::array<CodePointRange, 5> kLaterCompositions{{{0x105C0, 0x105FF},
                                                            {0x11380, 0x113FF},
                                                            {0x11900, 0x1195F},
                                                            {0x16100, 0x1613F},
                                                            {0x16D40, 0x16D7F}}};

// Common code points that neither change under NFC nor ever join what stands before them: up to
// Latin, Cyrillic, dashes and quotes, CJK punctuation, Hiragana, Katakana, ideographs, Hangul
// syllables, full-width forms, emoji.
constexpr std::array<CodePointRange, 10> kInert{{{0x0000, 0x02FF},
                                                 {0x0400, 0x0482},
                                                 {0x2010, 0x2027},
                                                 {0x3001, 0x3029},
                                                 {0x3041, 0x3096},
                                                 {0x30A0, 0x30FF},
                                                 {0x4E00, 0x9FFF},
                                                 {0xAC00, 0xD7A3},
                                                 {0xFF01, 0xFFEE},
                                                 {0x1F300, 0x1FAFF}}};

bool is_inert(char32_t code_point) {
  const auto range =
      std::ranges::lower_bound(kInert, code_point, {}, [](const auto& r) { return r.last; });
  return range != kInert.end() && range->first <= code_point;
}

bool is_surely_nfc(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    // What a byte below 0xCC begins is below U+0300.
    if (static_cast<std::uint8_t>(text[i]) < 0xCC) {
      ++i;
      continue;
    }
    const CodePoint point = code_point_at(text, i);
    if (!is_inert(point.value)) return false;
    i = point.end;
  }
  return true;
}

std::uint16_t combining_class(std::int32_t code_point) {
  return static_cast<std::uint16_t>(utf8proc_get_property(code_point)->combining_class);
}

// What Unicode 9 did not know is an unassigned starter there: it ends every mark sequence and
// takes part in no composition.
bool is_newer_than_nfc(char32_t code_point) {
  if (code_point < 0x300) return false;
  const auto holds = [&](const CodePointRange& r) {
    return r.first <= code_point && code_point <= r.last;
  };
  return std::ranges::any_of(kLaterCompositions, holds) ||
         (combining_class(static_cast<std::int32_t>(code_point)) != 0 &&
          !is_in(UnicodeClass::kNfcNonStarter, code_point));
}

void append_decomposed(std::vector<std::int32_t>& out, char32_t code_point) {
  std::array<std::int32_t, 32> parts;
  int last_boundary_class = 0;
  const auto count = utf8proc_decompose_char(
      static_cast<std::int32_t>(code_point), parts.data(), parts.size(),
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE), &last_boundary_class);
  if (count < 0 || count > static_cast<utf8proc_ssize_t>(parts.size())) {
    throw Error("utf8proc cannot decompose U+" + std::to_string(code_point));
  }
  out.insert(out.end(), parts.begin(), parts.begin() + count);
}

// Stable sort of each run of non-starters. utf8proc's own sort is quadratic in the run's length.
void order_marks(std::vector<std::int32_t>& points) {
  const auto is_mark = [](std::int32_t p) { return combining_class(p) != 0; };
  for (auto begin = points.begin(); begin != points.end();) {
    begin = std::find_if(begin, points.end(), is_mark);
    const auto end = std::find_if_not(begin, points.end(), is_mark);
    std::stable_sort(begin, end, [](std::int32_t a, std::int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = end;
  }
}

// Orders and composes `points`, appends them as UTF-8 and empties the buffer.
void flush(std::vector<std::int32_t>& points, std::string& text) {
  order_marks(points);
  const auto count =
      utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(text, static_cast<char32_t>(points[i]));
  points.clear();
}

}  // namespace

std::string nfc(std::string_view text) {
  if (is_surely_nfc(text)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  std::vector<std::int32_t> points;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = code_point_at(text, i);
    i = point.end;
    if (is_newer_than_nfc(point.value)) {
      flush(points, out);
      append_utf8(out, point.value);
    } else {
      append_decomposed(points, point.value);
    }
  }
  flush(points, out);
  return out;
}

}  // namespace rollcall
