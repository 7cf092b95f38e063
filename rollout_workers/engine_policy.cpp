// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/engine_policy.h"

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

std::unique_ptr<PolicySession> EnginePolicy::open(std::span<const std::int32_t> prompt,
                                                  std::uint64_t seed) {
  return std::make_unique<Session>(engine_, engine_.open(prompt, seed));
}

asio::awaitable<Completion> EnginePolicy::complete(PolicySession& session,
                                                   std::span<const std::int32_t> delta,
                                                   const SamplingOptions& options) {
  const SequenceId id = dynamic_cast<Session&>(session).id();
  engine_.request_turn(id, delta, options);
  co_return co_await waiters_.wait(id);
}

bool EnginePolicy::pump() {
  if (!engine_.has_work()) return false;
  for (auto& [sequence, completion] : engine_.step())
    waiters_.finish(sequence, std::move(completion));
  return true;
}

}  // namespace rollcall
