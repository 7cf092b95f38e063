// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

namespace rollcall {

struct CodePointRange {
  char32_t first;
  char32_t last;  // inclusive
};

enum class UnicodeClass {
  kLetter,         // regex class \p{L}, Unicode 16
  kUpperCase,      // regex class [\p{Lu}\p{Lt}]
  kLowerCase,      // regex class \p{Ll}
  kMark,           // regex class \p{M}
  kNumber,         // regex class \p{N}, Unicode 16
  kDigitsNumber,   // what the Digits pre-tokenizer splits: N of Unicode 17
  kWhiteSpace,     // regex class \s
  kWord,           // regex class \w
  kNfcNonStarter,  // canonical combining class is not 0 in Unicode 9
};

// Sorted, disjoint, never adjacent.
std::span<const CodePointRange> ranges_of(UnicodeClass name);

}  // namespace rollcall
