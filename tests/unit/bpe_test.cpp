// SPDX-License-Identifier: Apache-2.0
#include "model/bpe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

namespace rollcall {
namespace {

using Ids = std::vector<std::int32_t>;

// Bytes a, b, c are ids 0, 1, 2; every merge makes the next id out of two that exist.
std::array<std::int32_t, 256> three_bytes() {
  std::array<std::int32_t, 256> ids;
  ids.fill(-1);
  for (std::int32_t i = 0; i < 3; ++i) ids[static_cast<std::size_t>('a' + i)] = i;
  return ids;
}

MergeTable::Merges random_merges(std::mt19937& dice, std::int32_t count) {
  MergeTable::Merges merges;
  for (std::int32_t id = 3; id < 3 + count; ++id) {
    const auto draw = [&] { return static_cast<std::int32_t>(dice() % static_cast<unsigned>(id)); };
    merges.try_emplace(bpe_pair(draw(), draw()), BpeMerge{static_cast<std::uint32_t>(id), id});
  }
  return merges;
}

std::string random_word(std::mt19937& dice, std::size_t length) {
  std::string word(length, 'a');
  std::ranges::generate(word, [&] { return static_cast<char>('a' + dice() % 3); });
  return word;
}

// By the book: the pair of lowest rank, the leftmost of them, is joined until none is left.
Ids merged_by_the_book(Ids ids, const MergeTable::Merges& merges) {
  while (true) {
    std::size_t at = 0;
    const BpeMerge* best = nullptr;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = merges.find(bpe_pair(ids[i], ids[i + 1]));
      if (found == merges.end() || (best && best->rank <= found->second.rank)) continue;
      best = &found->second;
      at = i;
    }
    if (!best) return ids;
    ids[at] = best->id;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Bpe, JoinsTheLowestRankFirst) {
  const Bpe bpe(three_bytes(), {{bpe_pair(1, 2), {0, 3}}, {bpe_pair(0, 1), {1, 4}}});
  Ids ids{77};
  bpe.encode("abcab", ids);
  EXPECT_EQ(ids, (Ids{77, 0, 3, 4}));
}

TEST(Bpe, LeavesOutBytesWithoutAToken) {
  const Bpe bpe(three_bytes(), {{bpe_pair(0, 1), {0, 3}}});
  Ids ids;
  bpe.encode("a?b", ids);
  EXPECT_EQ(ids, (Ids{3}));
  bpe.encode("?", ids);
  bpe.encode("", ids);
  EXPECT_EQ(ids, (Ids{3}));
}

// Short words and long ones are merged in different ways.
TEST(Bpe, MergesByTheBookAtEveryLength) {
  std::mt19937 dice(1);
  for (std::size_t length = 1; length < 80; ++length) {
    const auto merges = random_merges(dice, 40);
    const Bpe bpe(three_bytes(), merges);
    for (int i = 0; i < 20; ++i) {
      const std::string word = random_word(dice, length);
      Ids bytes;
      for (const char c : word) bytes.push_back(c - 'a');
      Ids ids;
      bpe.encode(word, ids);
      EXPECT_EQ(ids, merged_by_the_book(bytes, merges)) << word;
    }
  }
}

}  // namespace
}  // namespace rollcall
