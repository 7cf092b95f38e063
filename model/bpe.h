// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rollcall {

struct BpeMerge {
  std::uint32_t rank;
  std::int32_t id;  // of the joined token
};

// Key of a pair of token ids in a merge table.
constexpr std::uint64_t bpe_pair(std::int32_t left, std::int32_t right) {
  return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
}

// Byte-pair merging. Immutable; thread-safe.
class Bpe {
 public:
  using Merges = std::unordered_map<std::uint64_t, BpeMerge>;

  // `byte_ids` -1: the vocabulary has no token for that byte; it vanishes from the text.
  Bpe(std::array<std::int32_t, 256> byte_ids, Merges merges);

  // Appends the ids of one word of fewer than 2^31 bytes; O(n log n).
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  struct Symbol;
  struct Candidate;
  class Queue;

  std::vector<Symbol> symbols_of(std::string_view word) const;
  void offer(const std::vector<Symbol>& symbols, std::int32_t left, Queue& queue) const;
  bool is_current(const std::vector<Symbol>& symbols, const Candidate& candidate) const;

  std::array<std::int32_t, 256> byte_ids_;
  Merges merges_;
};

}  // namespace rollcall
