// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <deque>
#include <utility>

#include "rollout_workers/event.h"

namespace rollcall {

// Lets at most `permits` coroutines in at once, in the order they came. Single thread; outlives its
// permits.
class Semaphore {
 public:
  explicit Semaphore(int permits) : free_(permits) {}
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  // Gives its place back on destruction.
  class Permit {
   public:
    explicit Permit(Semaphore& from) : from_(&from) {}
    Permit(Permit&& other) noexcept : from_(std::exchange(other.from_, nullptr)) {}
    Permit& operator=(Permit&&) = delete;
    ~Permit() {
      if (from_ != nullptr) from_->release();
    }

   private:
    Semaphore* from_;
  };

  asio::awaitable<Permit> acquire();

 private:
  struct Waiter;
  void release();

  int free_;
  std::deque<Waiter*> queue_;
};

}  // namespace rollcall
