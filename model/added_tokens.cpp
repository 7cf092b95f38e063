// SPDX-License-Identifier: Apache-2.0
#include "model/added_tokens.h"

#include <algorithm>

#include "model/unicode.h"

namespace rollcall {
namespace {

bool touches_word(std::string_view text, TextSpan span) {
  if (span.begin > 0 && is_in(UnicodeClass::kWord, code_point_before(text, span.begin).value)) {
    return true;
  }
  return span.end < text.size() && is_in(UnicodeClass::kWord, code_point_at(text, span.end).value);
}

std::size_t spaces_begin(std::string_view text, std::size_t end, std::size_t at_least) {
  while (end > at_least) {
    const CodePoint point = code_point_before(text, end);
    if (!is_in(UnicodeClass::kWhiteSpace, point.value)) break;
    end = point.end;
  }
  return end;
}

std::size_t spaces_end(std::string_view text, std::size_t begin) {
  while (begin < text.size()) {
    const CodePoint point = code_point_at(text, begin);
    if (!is_in(UnicodeClass::kWhiteSpace, point.value)) break;
    begin = point.end;
  }
  return begin;
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(const std::vector<AddedToken>& tokens)
    : tokens_(tokens), nodes_(1) {
  for (std::size_t i = 0; i < tokens_.size(); ++i) insert(i);
}

void AddedTokenFinder::insert(std::size_t token) {
  const std::string& content = tokens_[token].content;
  can_begin_[static_cast<std::uint8_t>(content.front())] = true;
  std::size_t at = 0;
  for (const char c : content) {
    const auto [child, is_new] = nodes_[at].children.try_emplace(c, nodes_.size());
    at = child->second;
    if (is_new) nodes_.emplace_back();
  }
  nodes_[at].token = static_cast<std::ptrdiff_t>(token);
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, std::size_t begin) const {
  const AddedToken* longest = nullptr;
  const Node* node = nodes_.data();
  for (std::size_t i = begin; i < text.size(); ++i) {
    const auto child = node->children.find(text[i]);
    if (child == node->children.end()) break;
    node = &nodes_[child->second];
    if (node->token >= 0) longest = &tokens_[static_cast<std::size_t>(node->token)];
  }
  return longest;
}

std::vector<AddedTokenFinder::Occurrence> AddedTokenFinder::occurrences(
    std::string_view text) const {
  std::vector<Occurrence> found;
  for (std::size_t i = 0; i < text.size();) {
    const bool may_begin = can_begin_[static_cast<std::uint8_t>(text[i])];
    const AddedToken* token = may_begin ? longest_at(text, i) : nullptr;
    const std::size_t end = token ? i + token->content.size() : i + 1;
    if (token) found.push_back({{i, end}, token});
    i = end;
  }
  return found;
}

std::vector<AddedTokenMatch> AddedTokenFinder::find(std::string_view text) const {
  std::vector<AddedTokenMatch> matches;
  std::size_t taken = 0;
  for (auto [span, token] : occurrences(text)) {
    if (token->single_word && touches_word(text, span)) continue;
    span.begin = std::max(span.begin, taken);
    if (token->left_strip) span.begin = spaces_begin(text, span.begin, taken);
    span.end = std::max(span.end, taken);  // its own white space may be taken already
    if (token->right_strip) span.end = spaces_end(text, span.end);
    matches.push_back({span, token->id});
    taken = span.end;
  }
  return matches;
}

std::vector<AddedTokenMatch> AddedTokenFinder::find_contents(std::string_view text) const {
  std::vector<AddedTokenMatch> matches;
  for (const auto& [span, token] : occurrences(text)) matches.push_back({span, token->id});
  return matches;
}

}  // namespace rollcall
