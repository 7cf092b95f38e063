// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/turn_waiters.h"

#include <asio/this_coro.hpp>
#include <utility>

#include "rollout_workers/event.h"

namespace rollcall {

struct TurnWaiters::Waiter {
  Waiter(TurnWaiters& of, std::int64_t sequence_in, const asio::any_io_executor& executor)
      : waiters(of), sequence(sequence_in), finished(executor) {
    waiters.waiters_.emplace(sequence, this);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter() { waiters.waiters_.erase(sequence); }

  TurnWaiters& waiters;
  std::int64_t sequence;
  Event finished;
  Completion completion;
};

asio::awaitable<Completion> TurnWaiters::wait(std::int64_t sequence) {
  Waiter waiter(*this, sequence, co_await asio::this_coro::executor);
  co_await waiter.finished.wait();
  co_return std::move(waiter.completion);
}

void TurnWaiters::finish(std::int64_t sequence, Completion completion) {
  const auto found = waiters_.find(sequence);
  if (found == waiters_.end()) return;
  found->second->completion = std::move(completion);
  found->second->finished.set();
}

}  // namespace rollcall
