// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "model/kernel_calls.h"

namespace rollcall {

// Threads that go through the same stages of work together. The items of a stage are dealt evenly,
// neighbours to one thread; one that is done early, since another lost its core for a while, takes
// the last items of the others. For files compiled with -fopenmp: elsewhere the calling thread does
// it all.
class CpuTeam {
 public:
  // One of the threads, as run()'s body sees it.
  class Member {
   public:
    std::int64_t index() const { return index_; }
    std::int64_t threads() const { return team_.threads_; }

    // Calls body(item) for those of the items [0, items), at most 2^32, that fall to this thread,
    // and returns when all are done. Every member calls it with the same items, stage after stage.
    template <class Body>
    void share(std::int64_t items, const Body& body) {
      const auto first = [&](std::int64_t thread) { return items * thread / threads(); };
      for (std::int64_t i = 0; i < threads(); ++i) {
        const std::int64_t thread = (index_ + i) % threads(), end = first(thread + 1);
        std::atomic<std::uint64_t>& taken = team_.taken(stage_, thread);
        const auto count = static_cast<std::uint64_t>(end - first(thread));
        const std::uint64_t one = thread == index_ ? 1 : kOneAtEnd;
        for (std::uint64_t seen = taken.load(); (seen & kAtFront) + seen / kOneAtEnd < count;) {
          if (!taken.compare_exchange_weak(seen, seen + one)) continue;
          body(thread == index_ ? first(thread) + static_cast<std::int64_t>(seen & kAtFront)
                                : end - 1 - static_cast<std::int64_t>(seen / kOneAtEnd));
          seen = taken.load();
        }
      }
      // Nobody looks there: all have left the stage before this one.
      team_.taken(stage_ + 1, index_).store(0);
      ++stage_;
#pragma omp barrier
    }

   private:
    friend class CpuTeam;
    Member(CpuTeam& team, std::int64_t index) : team_(team), index_(index) {}

    CpuTeam& team_;
    std::int64_t index_, stage_ = 0;
  };

  // Threads worth waking for so much work.
  static std::int64_t threads_for(std::int64_t flops) {
    return std::clamp<std::int64_t>(flops / kGrainFlops, 1, at::get_num_threads());
  }

  // Calls body(member) on each of the threads. The body must not throw.
  template <class Body>
  void run(std::int64_t threads, const Body& body) {
    threads_ = threads;
    taken_ = std::vector<Taken>(static_cast<std::size_t>(kStages * threads));
    std::atomic<std::int64_t> joined = 0;
#pragma omp parallel num_threads(static_cast <int>(threads_)) if (threads_ > 1)
    {
      Member member(*this, joined.fetch_add(1));
      body(member);
    }
  }

 private:
  // How many of a thread's items are taken, by itself from the front and by others from the end.
  static constexpr std::uint64_t kOneAtEnd = std::uint64_t{1} << 32, kAtFront = kOneAtEnd - 1;
  struct alignas(64) Taken {
    std::atomic<std::uint64_t> items = 0;
  };
  static constexpr std::int64_t kStages = 3;  // the present one, the next, and one that none is in

  std::atomic<std::uint64_t>& taken(std::int64_t stage, std::int64_t thread) {
    return taken_[static_cast<std::size_t>(stage % kStages * threads_ + thread)].items;
  }

  std::int64_t threads_ = 1;
  std::vector<Taken> taken_;
};

}  // namespace rollcall
