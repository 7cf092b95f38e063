// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

namespace rollcall {

// Something that one coroutine waits for and another party of the same thread announces. A waiter
// that is cancelled throws std::system_error(asio::error::operation_aborted). Single thread.
class Event {
 public:
  explicit Event(const asio::any_io_executor&);
  void set();
  bool is_set() const { return set_; }
  asio::awaitable<void> wait();
  // Waits on when cancelled. For coroutines that set throw_if_cancelled(false), as run_all() does.
  asio::awaitable<void> wait_on();

 private:
  asio::steady_timer timer_;
  bool set_ = false;
};

asio::awaitable<void> sleep_for(std::chrono::milliseconds);

// Runs all of `work` side by side and returns when each has ended. Cancelled itself, it cancels
// them, waits for them, and throws; else the first exception among them is rethrown.
asio::awaitable<void> run_all(std::vector<asio::awaitable<void>> work);

}  // namespace rollcall
