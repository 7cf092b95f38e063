// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <deque>
#include <utility>

#include "rollout_workers/event.h"

namespace rollcall {

// Lets at most `permits` coroutines in at once, in the order they came. Single thread. Permits may
// outlive it: a rollout that is thrown away with its executor may be the last thing to go.
class Semaphore {
  struct State;

 public:
  explicit Semaphore(int permits);

  // Gives its place back on destruction.
  class Permit {
   public:
    explicit Permit(std::shared_ptr<State> from);
    Permit(Permit&&) noexcept = default;
    Permit& operator=(Permit&&) = delete;
    ~Permit();

   private:
    std::shared_ptr<State> from_;
  };

  asio::awaitable<Permit> acquire();

  // From now on another number of permits. Those that are out stay out.
  void resize(int permits);
  int taken() const;            // permits that are out
  std::size_t waiting() const;  // coroutines that stand in the queue

 private:
  struct Waiter;

  std::shared_ptr<State> state_;
};

}  // namespace rollcall
