// SPDX-License-Identifier: Apache-2.0
#include "model/pre_tokenizer.h"

#include "model/unicode.h"

namespace rollcall {
namespace {

constexpr std::string_view kQwenRegex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Mistral's, of the tokenizers called Tekken.
constexpr std::string_view kTekkenRegex =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

enum class Kind : std::uint8_t { kEnd, kLetter, kNumber, kSpace, kOther };

struct Char {
  Kind kind;
  char32_t value;
  std::size_t end;
};

Kind ascii_kind(char32_t c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Kind::kLetter;
  if (c >= '0' && c <= '9') return Kind::kNumber;
  return c == ' ' || (c >= '\t' && c <= '\r') ? Kind::kSpace : Kind::kOther;
}

Kind kind_of(char32_t c) {
  if (c < 0x80) return ascii_kind(c);
  if (is_in(UnicodeClass::kLetter, c)) return Kind::kLetter;
  if (is_in(UnicodeClass::kNumber, c)) return Kind::kNumber;
  return is_in(UnicodeClass::kWhiteSpace, c) ? Kind::kSpace : Kind::kOther;
}

Char char_at(std::string_view text, std::size_t position) {
  if (position >= text.size()) return {Kind::kEnd, 0, position};
  const CodePoint point = code_point_at(text, position);
  return {kind_of(point.value), point.value, point.end};
}

bool is_newline(const Char& c) {
  return c.kind == Kind::kSpace && (c.value == '\r' || c.value == '\n');
}

std::size_t run_end(std::string_view text, std::size_t position, Kind kind) {
  for (Char c = char_at(text, position); c.kind == kind; c = char_at(text, position)) {
    position = c.end;
  }
  return position;
}

std::size_t newlines_end(std::string_view text, std::size_t position) {
  for (Char c = char_at(text, position); is_newline(c); c = char_at(text, position)) {
    position = c.end;
  }
  return position;
}

// Case folding as the reference's regex engine does it: U+017F (long s) equals s.
char32_t folded(char32_t c) {
  if (c >= 'A' && c <= 'Z') return c - 'A' + 'a';
  return c == 0x17F ? U's' : c;
}

// End of 's 't 're 've 'm 'll 'd at `begin`, or `begin` if there is none.
std::size_t contraction_end(std::string_view text, std::size_t begin, bool ignore_case) {
  if (text[begin] != '\'') return begin;
  const Char first = char_at(text, begin + 1);
  const char32_t a = ignore_case ? folded(first.value) : first.value;
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return first.end;
  const Char second = char_at(text, first.end);
  const char32_t b = ignore_case ? folded(second.value) : second.value;
  const bool found = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
  return found ? second.end : begin;
}

// \s+(?!\S)|\s+ : all of the white space at the text's end, else all but its last character.
std::size_t spaces_end(std::string_view text, std::size_t begin) {
  std::size_t last = begin;
  std::size_t end = begin;
  for (Char c = char_at(text, begin); c.kind == Kind::kSpace; c = char_at(text, end)) {
    last = end;
    end = c.end;
  }
  return end < text.size() && last > begin ? last : end;
}

// \s*[\r\n]+ : up to the last line break of the white space, or `begin` if there is none.
std::size_t line_breaks_end(std::string_view text, std::size_t begin) {
  std::size_t found = begin;
  std::size_t end = begin;
  for (Char c = char_at(text, end); c.kind == Kind::kSpace; c = char_at(text, end)) {
    end = c.end;
    if (is_newline(c)) found = end;
  }
  return found;
}

std::size_t numbers_end(std::string_view text, std::size_t position, int at_most) {
  Char c = char_at(text, position);
  for (int i = 0; i < at_most && c.kind == Kind::kNumber; ++i) {
    position = c.end;
    c = char_at(text, position);
  }
  return position;
}

// \s*[\r\n]+|\s+(?!\S)|\s+
std::size_t white_space_end(std::string_view text, std::size_t begin) {
  const std::size_t line_breaks = line_breaks_end(text, begin);
  return line_breaks != begin ? line_breaks : spaces_end(text, begin);
}

// The alternatives of the Qwen and Llama-3 expressions, in order.
std::size_t cl100k_word_end(std::string_view text, std::size_t begin, int digits) {
  const std::size_t contraction = contraction_end(text, begin, true);
  if (contraction != begin) return contraction;
  const Char first = char_at(text, begin);
  const Char second = char_at(text, first.end);
  if (first.kind == Kind::kLetter) return run_end(text, first.end, Kind::kLetter);
  if (first.kind == Kind::kNumber) return numbers_end(text, begin, digits);
  if (second.kind == Kind::kLetter && !is_newline(first)) {
    return run_end(text, second.end, Kind::kLetter);
  }
  if (first.kind == Kind::kOther || (first.value == ' ' && second.kind == Kind::kOther)) {
    return newlines_end(text, run_end(text, first.end, Kind::kOther));
  }
  return white_space_end(text, begin);
}

// How Tekken's expression sees letters and marks.
enum class Case : std::uint8_t { kNone, kUpper, kLower, kEither };

Case case_of(const Char& c) {
  if (c.kind != Kind::kLetter && c.kind != Kind::kOther) return Case::kNone;
  if (c.value < 0x80) {
    if (c.kind == Kind::kOther) return Case::kNone;
    return c.value <= 'Z' ? Case::kUpper : Case::kLower;
  }
  if (c.kind == Kind::kOther)
    return is_in(UnicodeClass::kMark, c.value) ? Case::kEither : Case::kNone;
  if (is_in(UnicodeClass::kLowerCase, c.value)) return Case::kLower;
  return is_in(UnicodeClass::kUpperCase, c.value) ? Case::kUpper : Case::kEither;
}

// The characters from `begin` on that are `one` or either; `last_either` is the end of the last
// that is.
struct CaseRun {
  std::size_t end, last_either;
};

CaseRun case_run(std::string_view text, std::size_t begin, Case one) {
  CaseRun run{begin, begin};
  for (Char c = char_at(text, begin);; c = char_at(text, run.end)) {
    const Case cased = case_of(c);
    if (cased != one && cased != Case::kEither) return run;
    run.end = c.end;
    if (cased == Case::kEither) run.last_either = run.end;
  }
}

// UPPER* LOWER+: backs off to the last upper one that may be a lower one. `begin`: no match.
std::size_t lower_word_end(std::string_view text, std::size_t begin) {
  const CaseRun upper = case_run(text, begin, Case::kUpper);
  const std::size_t end = case_run(text, upper.end, Case::kLower).end;
  return end != upper.end ? end : upper.last_either;
}

// UPPER+ LOWER* where UPPER* LOWER+ does not match.
std::size_t upper_word_end(std::string_view text, std::size_t begin) {
  return case_run(text, begin, Case::kUpper).end;
}

std::size_t tekken_word_end(std::string_view text, std::size_t begin) {
  const Char first = char_at(text, begin);
  const bool leads =
      first.kind != Kind::kLetter && first.kind != Kind::kNumber && !is_newline(first);
  for (const auto word_end : {lower_word_end, upper_word_end}) {
    for (const std::size_t start : {leads ? first.end : begin, begin}) {
      const std::size_t end = word_end(text, start);
      if (end != start) return end;
    }
  }
  if (first.kind == Kind::kNumber) return first.end;
  const Char second = char_at(text, first.end);
  if (first.kind == Kind::kOther || (first.value == ' ' && second.kind == Kind::kOther)) {
    std::size_t end = run_end(text, first.end, Kind::kOther);
    for (Char c = char_at(text, end); is_newline(c) || c.value == '/'; c = char_at(text, end))
      end = c.end;
    return end;
  }
  return white_space_end(text, begin);
}

std::size_t gpt2_word_end(std::string_view text, std::size_t begin) {
  const std::size_t contraction = contraction_end(text, begin, false);
  if (contraction != begin) return contraction;
  const Char first = char_at(text, begin);
  if (first.kind != Kind::kSpace) return run_end(text, first.end, first.kind);
  const Char second = char_at(text, first.end);
  const bool leads_word = second.kind != Kind::kSpace && second.kind != Kind::kEnd;
  if (first.value == ' ' && leads_word) return run_end(text, second.end, second.kind);
  return spaces_end(text, begin);
}

using Words = std::vector<std::string_view>;

template <typename WordEnd>
void append_words(std::string_view text, Words& words, const WordEnd& word_end) {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = word_end(text, begin);
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
}

std::size_t digit_free_end(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    const CodePoint point = code_point_at(text, begin);
    if (is_in(UnicodeClass::kDigitsNumber, point.value)) break;
    begin = point.end;
  }
  return begin;
}

// The expression sees one part between two digits at a time: its lookahead stops there.
void append_digits_gpt2_words(std::string_view text, Words& words) {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = digit_free_end(text, begin);
    append_words(text.substr(begin, end - begin), words, gpt2_word_end);
    if (end == text.size()) break;
    begin = code_point_at(text, end).end;
    words.push_back(text.substr(end, begin - end));
  }
}

}  // namespace

std::optional<PreTokenizer> pre_tokenizer_of_pattern(std::string_view regex) {
  if (regex == kQwenRegex) return PreTokenizer::kQwen;
  if (regex == kLlama3Regex) return PreTokenizer::kLlama3;
  if (regex == kTekkenRegex) return PreTokenizer::kTekken;
  if (regex == kGpt2Regex) return PreTokenizer::kGpt2;
  return std::nullopt;
}

std::vector<std::string_view> words_of(PreTokenizer kind, std::string_view text) {
  Words words;
  const auto cl100k = [](int digits) {
    return [digits](std::string_view t, std::size_t i) { return cl100k_word_end(t, i, digits); };
  };
  switch (kind) {
    case PreTokenizer::kQwen:
      append_words(text, words, cl100k(1));
      break;
    case PreTokenizer::kLlama3:
      append_words(text, words, cl100k(3));
      break;
    case PreTokenizer::kTekken:
      append_words(text, words, tekken_word_end);
      break;
    case PreTokenizer::kGpt2:
      append_words(text, words, gpt2_word_end);
      break;
    case PreTokenizer::kDigitsGpt2:
      append_digits_gpt2_words(text, words);
      break;
  }
  return words;
}

}  // namespace rollcall
