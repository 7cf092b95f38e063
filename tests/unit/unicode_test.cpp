// SPDX-License-Identifier: Apache-2.0
#include "model/unicode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "tests/unit/text_golden.h"

namespace rollcall {
namespace {

std::string utf8(std::u32string_view points) {
  std::string text;
  for (const char32_t c : points) append_utf8(text, c);
  return text;
}

std::vector<std::pair<char32_t, char32_t>> ranges_in(UnicodeClass name) {
  std::vector<std::pair<char32_t, char32_t>> ranges;
  for (const auto& range : ranges_of(name)) ranges.emplace_back(range.first, range.last);
  return ranges;
}

TEST(UnicodeTables, HoldTheReferencesClasses) {
  const auto source = nlohmann::json::parse(read_text(golden_path("tokenizers/unicode.json")));
  using Ranges = std::vector<std::pair<char32_t, char32_t>>;
  const auto& classes = source["classes"];
  EXPECT_EQ(ranges_in(UnicodeClass::kLetter), classes["L"].get<Ranges>());
  EXPECT_EQ(ranges_in(UnicodeClass::kNumber), classes["N"].get<Ranges>());
  EXPECT_EQ(ranges_in(UnicodeClass::kDigitsNumber), classes["Digits"].get<Ranges>());
  EXPECT_EQ(ranges_in(UnicodeClass::kWhiteSpace), classes["s"].get<Ranges>());
  EXPECT_EQ(ranges_in(UnicodeClass::kNfcNonStarter), source["nfc_nonstarters"].get<Ranges>());
}

TEST(UnicodeTables, FindEveryEndOfEveryRange) {
  for (const auto& [first, last] : ranges_of(UnicodeClass::kWord)) {
    EXPECT_TRUE(is_in(UnicodeClass::kWord, first) && is_in(UnicodeClass::kWord, last));
    EXPECT_FALSE(is_in(UnicodeClass::kWord, first - 1) || is_in(UnicodeClass::kWord, last + 1));
  }
}

TEST(Utf8, RoundTripsEveryLengthInBothDirections) {
  for (const char32_t c :
       {U'\0', U'\x7F', U'\x80', U'\x7FF', U'\x800', U'\xFFFF', U'\x10000', U'\x10FFFF'}) {
    const std::string text = "a" + utf8({&c, 1});
    EXPECT_EQ(code_point_at(text, 1).value, c);
    EXPECT_EQ(code_point_at(text, 1).end, text.size());
    EXPECT_EQ(code_point_before(text, text.size()).value, c);
    EXPECT_EQ(code_point_before(text, text.size()).end, 1u);
  }
}

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_FALSE(invalid_utf8_position("a\xC3\xBC\xF0\x9F\x98\x80"));
  EXPECT_EQ(invalid_utf8_position("ab\xED\xA0\x80"), 2u);     // a surrogate
  EXPECT_EQ(invalid_utf8_position("\xC0\xAF"), 0u);           // overlong
  EXPECT_EQ(invalid_utf8_position("a\xF4\x90\x80\x80"), 1u);  // above U+10FFFF
  EXPECT_EQ(invalid_utf8_position("a\xF0\x9F\x98"), 1u);      // cut short
}

// Unicode 3.9, table 3-8: U+FFFD for each maximal part that begins a valid sequence.
TEST(Utf8, ReplacesEachMaximalInvalidPart) {
  EXPECT_EQ(replace_invalid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            utf8(U"a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd"));
  EXPECT_EQ(replace_invalid_utf8("\xED\xA0\x80"), utf8(U"\uFFFD\uFFFD\uFFFD"));
}

TEST(Nfc, ComposesAndOrdersMarks) {
  EXPECT_EQ(nfc(utf8(U"e\u0301")), utf8(U"\u00E9"));
  EXPECT_EQ(nfc(utf8(U"q\u0307\u0323")), utf8(U"q\u0323\u0307"));
  EXPECT_EQ(nfc(utf8(U"\u1112\u1161\u11AB")), utf8(U"\uD55C"));
  EXPECT_EQ(nfc(utf8(U"\u212B")), utf8(U"\u00C5"));
}

TEST(Nfc, LeavesWhatCameAfterUnicode9) {
  const std::string new_mark_behind_old = utf8(U"a\u0345\u0898");  // U+0898: Unicode 14, class 230
  EXPECT_EQ(nfc(new_mark_behind_old), new_mark_behind_old);
  const std::string dives_akuru = utf8(U"\U00011935\U00011930");  // composes since Unicode 13
  EXPECT_EQ(nfc(dives_akuru), dives_akuru);
}

TEST(Nfc, TakesLinearTimeForMarksInBadOrder) {
  std::string text = "a";
  for (int i = 0; i < 100'000; ++i) text += utf8(U"\u0301\u0323");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(nfc(text).substr(0, 5), utf8(U"\u1EA1\u0323"));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

}  // namespace
}  // namespace rollcall
