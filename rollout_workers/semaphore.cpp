// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/semaphore.h"

#include <asio/this_coro.hpp>
#include <deque>

#include "rollout_workers/event.h"

namespace rollcall {

struct Semaphore::State {
  int permits = 0;
  int free = 0;  // below 0: more are out than there are permits
  std::deque<Waiter*> queue;

  void release();
  void grant();
};

// Stands in the queue until it is granted a place; leaves no trace if it is given up before that.
struct Semaphore::Waiter {
  Waiter(std::shared_ptr<State> of, const asio::any_io_executor& executor)
      : state(std::move(of)), granted(executor) {
    state->queue.push_back(this);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter() {
    if (!granted.is_set()) {
      std::erase(state->queue, this);
    } else if (!taken) {
      state->release();
    }
  }

  std::shared_ptr<State> state;
  Event granted;
  bool taken = false;
};

void Semaphore::State::release() {
  ++free;
  grant();
}

void Semaphore::State::grant() {
  while (free > 0 && !queue.empty()) {
    Waiter* first = queue.front();
    queue.pop_front();
    --free;
    first->granted.set();
  }
}

Semaphore::Semaphore(int permits) : state_(std::make_shared<State>()) {
  state_->permits = state_->free = permits;
}

void Semaphore::resize(int permits) {
  state_->free += permits - std::exchange(state_->permits, permits);
  state_->grant();
}

int Semaphore::taken() const { return state_->permits - state_->free; }

std::size_t Semaphore::waiting() const { return state_->queue.size(); }

Semaphore::Permit::Permit(std::shared_ptr<State> from) : from_(std::move(from)) {}

Semaphore::Permit::~Permit() {
  if (from_ != nullptr) from_->release();
}

asio::awaitable<Semaphore::Permit> Semaphore::acquire() {
  const auto state = state_;
  if (state->free > 0) {
    --state->free;
    co_return Permit(state);
  }
  const auto executor = co_await asio::this_coro::executor;
  Waiter waiter(state, executor);
  co_await waiter.granted.wait();
  waiter.taken = true;
  co_return Permit(state);
}

}  // namespace rollcall
