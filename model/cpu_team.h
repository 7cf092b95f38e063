// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "model/cpu_kernels.h"

namespace rollcall {

inline constexpr std::int64_t kGrainFlops = 1 << 18;  // work worth waking a thread for
inline constexpr std::int64_t kItemsAThread = 6;      // of a stage, if they can be so small

// How many parts of `part` items each, the last may have fewer, make `count`.
constexpr std::int64_t parts(std::int64_t count, std::int64_t part) {
  return (count + part - 1) / part;
}

// How many of `count` to a part, so that each thread finds several.
inline std::int64_t part_size(std::int64_t count, std::int64_t threads, std::int64_t most) {
  return std::clamp<std::int64_t>(count / (kItemsAThread * threads), 1, most);
}

// [first, last) of a count.
struct Part {
  std::int64_t first, last;
  std::int64_t count() const { return last - first; }
};

inline Part nth_part(std::int64_t i, std::int64_t part, std::int64_t count) {
  return {i * part, std::min(count, (i + 1) * part)};
}

// Threads that go through the same stages of work together. The items of a stage are dealt evenly,
// neighbours to one thread; one that is done early, since another lost its core for a while, takes
// the last items of the others. For files compiled with -fopenmp: elsewhere, and inside of a
// parallel region, the calling thread does it all.
class CpuTeam {
 public:
  // One of the threads, as run()'s body sees it.
  class Member {
   public:
    std::int64_t index() const { return index_; }
    // That work is dealt to: the members below this index.
    std::int64_t threads() const { return threads_; }

    // Calls body(item) for those of the items [0, items), at most 2^32, that fall to this thread,
    // and returns when all are done. Every member calls it with the same items, stage after stage.
    template <class Body>
    void share(std::int64_t items, const Body& body) {
      if (index_ < threads_) {
        take(items, body);
        // Nobody looks there: all have left the stage before this one.
        team_.taken(stage_ + 1, index_).store(0);
      }
      ++stage_;
#pragma omp barrier
    }

   private:
    friend class CpuTeam;
    Member(CpuTeam& team, std::int64_t index, std::int64_t threads)
        : team_(team), index_(index), threads_(threads) {}

    template <class Body>
    void take(std::int64_t items, const Body& body) {
      const auto first = [&](std::int64_t thread) { return items * thread / threads_; };
      for (std::int64_t i = 0; i < threads_; ++i) {
        const std::int64_t thread = (index_ + i) % threads_, end = first(thread + 1);
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
    }

    CpuTeam& team_;
    std::int64_t index_, threads_, stage_ = 0;
  };

  // The most members that work is dealt to.
  static std::int64_t most_threads() { return at::get_num_threads(); }

  // Calls body(member) on threads that are worth waking for so much work, and on others that only
  // wait: a region of another size than the one before would make libgomp end threads and begin
  // new ones. The body must not throw: an exception cannot leave a parallel region.
  template <class Body>
  void run(std::int64_t flops, const Body& body) {
    cpu_kernels();  // whose first call may
    const std::int64_t wanted = std::clamp<std::int64_t>(flops / kGrainFlops, 1, most_threads());
    taken_ = std::vector<Taken>(static_cast<std::size_t>(kStages * wanted));
#pragma omp parallel if (wanted > 1)
    {
      std::int64_t index = 0, threads = 1;
#if defined(_OPENMP)
      index = omp_get_thread_num();
      threads = omp_get_num_threads();
#endif
      Member member(*this, index, std::min(wanted, threads));
      body(member);
    }
  }

 private:
  // How many of a thread's items are taken, by itself from the front and by others from the end.
  static constexpr std::uint64_t kOneAtEnd = std::uint64_t{1} << 32, kAtFront = kOneAtEnd - 1;
  struct alignas(64) Taken {
    std::atomic<std::uint64_t> items = 0;
  };
  static constexpr std::int64_t kStages = 2;  // the present one and the next

  std::atomic<std::uint64_t>& taken(std::int64_t stage, std::int64_t thread) {
    const std::int64_t threads = std::ssize(taken_) / kStages;
    return taken_[static_cast<std::size_t>(stage % kStages * threads + thread)].items;
  }

  std::vector<Taken> taken_;
};

// Runs body(begin, end) over the parts of [0, n), each item costing `flops`, as a stage of its own.
// Throws what a part threw first; others run all the same.
template <class Body>
void parallel(std::int64_t n, std::int64_t flops, const Body& body) {
  if (n == 0) return;
  if (n * flops < 2 * kGrainFlops) return body(std::int64_t{0}, n);
  std::atomic<bool> failed = false;
  std::exception_ptr error;
  CpuTeam().run(n * flops, [&](CpuTeam::Member& member) {
    const std::int64_t part = part_size(n, member.threads(), n);
    member.share(parts(n, part), [&](std::int64_t i) {
      const Part r = nth_part(i, part, n);
      try {
        body(r.first, r.last);
      } catch (...) {
        if (!failed.exchange(true)) error = std::current_exception();
      }
    });
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace rollcall
