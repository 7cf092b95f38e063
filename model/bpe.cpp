// SPDX-License-Identifier: Apache-2.0
#include "model/bpe.h"

#include <algorithm>
#include <queue>
#include <utility>

namespace rollcall {

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

Bpe::Bpe(std::array<std::int32_t, 256> byte_ids, Merges merges)
    : byte_ids_(byte_ids), merges_(std::move(merges)) {}

std::vector<Bpe::Symbol> Bpe::symbols_of(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(c)];
    if (id < 0) continue;
    const auto position = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, position - 1, position + 1});
  }
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

void Bpe::offer(const std::vector<Symbol>& symbols, std::int32_t left, Queue& queue) const {
  if (left < 0 || symbols[left].next < 0) return;
  const auto merge = merges_.find(bpe_pair(symbols[left].id, symbols[symbols[left].next].id));
  if (merge != merges_.end()) queue.push({merge->second.rank, left, merge->second.id});
}

// A candidate is stale when its symbols were merged otherwise meanwhile. As in the reference, one
// that would now give the same token from other parts still counts.
bool Bpe::is_current(const std::vector<Symbol>& symbols, const Candidate& candidate) const {
  const Symbol& left = symbols[candidate.position];
  if (left.id < 0 || left.next < 0) return false;
  const auto merge = merges_.find(bpe_pair(left.id, symbols[left.next].id));
  return merge != merges_.end() && merge->second.id == candidate.id;
}

void Bpe::encode(std::string_view word, std::vector<std::int32_t>& ids) const {
  std::vector<Symbol> symbols = symbols_of(word);
  Queue queue;
  const auto count = static_cast<std::int32_t>(symbols.size());
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
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

}  // namespace rollcall
