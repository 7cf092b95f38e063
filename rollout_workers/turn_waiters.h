// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <cstdint>
#include <unordered_map>

#include "comms/turn.h"

namespace rollcall {

// The coroutines that wait for a turn, by the number of their sequence. Single thread.
class TurnWaiters {
 public:
  // Until finish() of that number. A waiter that is cancelled is forgotten.
  asio::awaitable<Completion> wait(std::int64_t sequence);
  // Its waiter goes on when the executor runs. Of one that nobody waits for: nothing.
  void finish(std::int64_t sequence, Completion);

 private:
  struct Waiter;

  std::unordered_map<std::int64_t, Waiter*> waiters_;
};

}  // namespace rollcall
