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

// The merges, for fast look-up: a power of two of slots, linear probing, at most half full.
class MergeTable {
 public:
  using Merges = std::unordered_map<std::uint64_t, BpeMerge>;

  explicit MergeTable(const Merges& merges);

  // Null if the pair is never merged.
  const BpeMerge* find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t pair = kFree;
    BpeMerge merge{};
  };
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};

  std::size_t slot_of(std::uint64_t pair) const;

  std::vector<Slot> slots_;
  int shift_;
};

// Byte-pair merging. Immutable; thread-safe.
class Bpe {
 public:
  using Merges = MergeTable::Merges;

  // `byte_ids` -1: the vocabulary has no token for that byte; it vanishes from the text.
  Bpe(std::array<std::int32_t, 256> byte_ids, const Merges& merges);

  // Appends the ids of one word of fewer than 2^31 bytes; O(n log n).
  void encode(std::string_view word, std::vector<std::int32_t>& ids) const;

 private:
  struct Symbol;
  struct Candidate;
  class Queue;

  void merge_short(std::vector<std::int32_t>& ids, std::size_t begin) const;
  void merge_long(std::vector<std::int32_t>& ids, std::size_t begin) const;
  void offer(const std::vector<Symbol>& symbols, std::int32_t left, Queue& queue) const;
  bool is_current(const std::vector<Symbol>& symbols, const Candidate& candidate) const;

  std::array<std::int32_t, 256> byte_ids_;
  MergeTable merges_;
};

}  // namespace rollcall
