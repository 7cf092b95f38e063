// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/semaphore.h"

#include <asio/this_coro.hpp>

namespace rollcall {

// Stands in the queue until it is granted a place; leaves no trace if it is given up before that.
struct Semaphore::Waiter {
  Waiter(Semaphore& of, const asio::any_io_executor& executor) : semaphore(of), granted(executor) {
    semaphore.queue_.push_back(this);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter() {
    if (!granted.is_set()) {
      std::erase(semaphore.queue_, this);
    } else if (!taken) {
      semaphore.release();
    }
  }

  Semaphore& semaphore;
  Event granted;
  bool taken = false;
};

asio::awaitable<Semaphore::Permit> Semaphore::acquire() {
  if (free_ > 0) {
    --free_;
    co_return Permit(*this);
  }
  const auto executor = co_await asio::this_coro::executor;
  Waiter waiter(*this, executor);
  co_await waiter.granted.wait();
  waiter.taken = true;
  co_return Permit(*this);
}

void Semaphore::release() {
  if (queue_.empty()) {
    ++free_;
    return;
  }
  Waiter* first = queue_.front();
  queue_.pop_front();
  first->granted.set();
}

}  // namespace rollcall
