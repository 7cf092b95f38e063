// SPDX-License-Identifier: Apache-2.0
#include "model/bpe.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>
#include <utility>

namespace rollcall {
namespace {

constexpr std::size_t kShortWord = 32;  // symbols

}  // namespace

struct Bpe::Symbol {
  std::int32_t id;  // -1 once it is part of its left neighbour
  std::int32_t previous;
  std::int32_t next;  // -1 at the end
};

struct Bpe::Candidate {
  std::uint32_t rank;
  std::int32_t position;
  std::int32_t id;

  // The lowest rank first, then the leftmost: top of a max-heap.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return std::pair(a.rank, a.position) > std::pair(b.rank, b.position);
  }
};

class Bpe::Queue : public std::priority_queue<Candidate> {};

MergeTable::MergeTable(const Merges& merges)
    : slots_(std::bit_ceil(2 * merges.size() + 2)), shift_(64 - std::countr_zero(slots_.size())) {
  for (const auto& [pair, merge] : merges) slots_[slot_of(pair)] = {pair, merge};
}

// Where the pair is, or would be.
std::size_t MergeTable::slot_of(std::uint64_t pair) const {
  std::size_t slot = (pair * 0x9E3779B97F4A7C15) >> shift_;  // Fibonacci hashing
  while (slots_[slot].pair != pair && slots_[slot].pair != kFree) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return slot;
}

const BpeMerge* MergeTable::find(std::int32_t left, std::int32_t right) const {
  const Slot& slot = slots_[slot_of(bpe_pair(left, right))];
  return slot.pair == kFree ? nullptr : &slot.merge;
}

Bpe::Bpe(std::array<std::int32_t, 256> byte_ids, const Merges& merges)
    : byte_ids_(byte_ids), merges_(merges) {}

void Bpe::offer(const std::vector<Symbol>& symbols, std::int32_t left, Queue& queue) const {
  if (left < 0 || symbols[left].next < 0) return;
  const BpeMerge* merge = merges_.find(symbols[left].id, symbols[symbols[left].next].id);
  if (merge) queue.push({merge->rank, left, merge->id});
}

// A candidate is stale when its symbols were merged otherwise meanwhile. As in the reference, one
// that would now give the same token from other parts still counts.
bool Bpe::is_current(const std::vector<Symbol>& symbols, const Candidate& candidate) const {
  const Symbol& left = symbols[candidate.position];
  if (left.id < 0 || left.next < 0) return false;
  const BpeMerge* merge = merges_.find(left.id, symbols[left.next].id);
  return merge && merge->id == candidate.id;
}

// The same by looking for the best pair again and again: for the few bytes of most words faster
// than a queue.
void Bpe::merge_short(std::vector<std::int32_t>& ids, std::size_t begin) const {
  constexpr BpeMerge kNone{std::numeric_limits<std::uint32_t>::max(), -1};
  std::array<BpeMerge, kShortWord> pairs;  // of each symbol with the next one
  std::int32_t* const symbols = ids.data() + begin;
  std::size_t count = ids.size() - begin;
  const auto look_up = [&](std::size_t i) {
    const BpeMerge* merge = merges_.find(symbols[i], symbols[i + 1]);
    pairs[i] = merge ? *merge : kNone;
  };
  for (std::size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    const auto end = pairs.begin() + static_cast<std::ptrdiff_t>(count - 1);
    const auto best = std::ranges::min_element(pairs.begin(), end, {}, &BpeMerge::rank);
    if (best->id < 0) break;
    const auto at = static_cast<std::size_t>(best - pairs.begin());
    symbols[at] = best->id;
    std::copy(symbols + at + 2, symbols + count, symbols + at + 1);
    std::copy(best + 1, end, best);
    --count;
    if (at > 0) look_up(at - 1);
    if (at + 1 < count) look_up(at);
  }
  ids.resize(begin + count);
}

void Bpe::merge_long(std::vector<std::int32_t>& ids, std::size_t begin) const {
  const auto count = static_cast<std::int32_t>(ids.size() - begin);
  std::vector<Symbol> symbols;
  symbols.reserve(ids.size() - begin);
  for (std::int32_t i = 0; i < count; ++i) {
    symbols.push_back(
        {ids[begin + static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  }
  Queue queue;
  for (std::int32_t i = 0; i + 1 < count; ++i) offer(symbols, i, queue);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    if (!is_current(symbols, top)) continue;
    Symbol& left = symbols[top.position];
    Symbol& right = symbols[left.next];
    left.id = top.id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = top.position;
    offer(symbols, left.previous, queue);
    offer(symbols, top.position, queue);
  }
  ids.resize(begin);
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

void Bpe::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  const std::size_t begin = ids.size();
  for (const char c : word) {
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(c)];
    if (id >= 0) ids.push_back(id);
  }
  ids.size() - begin <= kShortWord ? merge_short(ids, begin) : merge_long(ids, begin);
}

}  // namespace rollcall
