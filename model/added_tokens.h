// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;     // left out by decode(skip_special_tokens)
  bool normalized = false;  // looked for in normalised text instead of the raw one
  bool left_strip = false;  // takes the white space before it
  bool right_strip = false;
  bool single_word = false;  // no match if a word character touches it
};

struct TextSpan {
  std::size_t begin;
  std::size_t end;
};

struct AddedTokenMatch {
  TextSpan span;
  std::int32_t id;
};

// Finds a set of added tokens in text, leftmost and longest first. Immutable; thread-safe.
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(const std::vector<AddedToken>& tokens);

  bool empty() const { return tokens_.empty(); }

  // Matches in order, disjoint, by the rules of single_word, lstrip and rstrip.
  std::vector<AddedTokenMatch> find(std::string_view text) const;

  // Matches of the bare contents, those rules left aside.
  std::vector<AddedTokenMatch> find_contents(std::string_view text) const;

 private:
  struct Node {
    std::map<char, std::size_t> children;
    std::ptrdiff_t token = -1;  // index of the token that ends here
  };
  struct Occurrence {
    TextSpan span;
    const AddedToken* token;
  };

  void insert(std::size_t token);
  std::vector<Occurrence> occurrences(std::string_view text) const;
  const AddedToken* longest_at(std::string_view text, std::size_t begin) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;  // a trie; 0 is the root
  std::array<bool, 256> can_begin_{};
};

}  // namespace rollcall
