// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <chrono>

namespace rollcall {

// A token bucket that holds one token: turns come at least 1 / `per_second` apart, in the order
// they were asked for, and unused ones are not saved up. 0: every turn comes at once. Single
// thread.
class RateLimit {
 public:
  explicit RateLimit(double per_second);
  // A turn that was cancelled while it waited is spent.
  asio::awaitable<void> turn();

 private:
  using Clock = std::chrono::steady_clock;

  Clock::duration interval_{0};
  Clock::time_point next_{};
};

}  // namespace rollcall
