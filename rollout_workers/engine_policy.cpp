// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/engine_policy.h"

#include <asio/this_coro.hpp>

#include "rollout_workers/event.h"

namespace rollcall {

class EnginePolicy::Session : public PolicySession {
 public:
  Session(Engine& engine, SequenceId id) : engine_(engine), id_(id) {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() override { engine_.close(id_); }

  SequenceId id() const { return id_; }

 private:
  Engine& engine_;
  SequenceId id_;
};

// A coroutine whose turn is being sampled.
struct EnginePolicy::Waiter {
  Waiter(EnginePolicy& of, SequenceId id_in, const asio::any_io_executor& executor)
      : policy(of), id(id_in), finished(executor) {
    policy.waiters_.emplace(id, this);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  ~Waiter() { policy.waiters_.erase(id); }

  EnginePolicy& policy;
  SequenceId id;
  Event finished;
  Completion completion;
};

std::unique_ptr<PolicySession> EnginePolicy::open(std::span<const std::int32_t> prompt,
                                                  std::uint64_t seed) {
  return std::make_unique<Session>(engine_, engine_.open(prompt, seed));
}

asio::awaitable<Completion> EnginePolicy::complete(PolicySession& session,
                                                   std::span<const std::int32_t> delta,
                                                   const SamplingOptions& options) {
  const SequenceId id = dynamic_cast<Session&>(session).id();
  const auto executor = co_await asio::this_coro::executor;
  engine_.request_turn(id, delta, options);
  Waiter waiter(*this, id, executor);
  co_await waiter.finished.wait();
  co_return std::move(waiter.completion);
}

bool EnginePolicy::pump() {
  if (!engine_.has_work()) return false;
  for (auto& [sequence, completion] : engine_.step()) {
    const auto found = waiters_.find(sequence);
    if (found == waiters_.end()) continue;
    found->second->completion = std::move(completion);
    found->second->finished.set();
  }
  return true;
}

}  // namespace rollcall
