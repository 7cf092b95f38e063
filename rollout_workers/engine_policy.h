// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/engine.h"
#include "rollout_workers/policy.h"
#include "rollout_workers/turn_waiters.h"

namespace rollcall {

// A Policy that samples with an Engine of this process. Coroutines wait while the thread's loop
// calls pump(). Single thread; the engine outlives the policy, the policy its sessions.
class EnginePolicy final : public Policy {
 public:
  explicit EnginePolicy(Engine& engine) : engine_(engine) {}

  std::unique_ptr<PolicySession> open(std::span<const std::int32_t> prompt,
                                      std::uint64_t seed) override;
  asio::awaitable<Completion> complete(PolicySession&, std::span<const std::int32_t> delta,
                                       const SamplingOptions&) override;

  // One engine step; wakes the coroutines whose turns ended in it (they go on when the executor
  // runs). False if there was nothing to do.
  bool pump();

 private:
  class Session;

  Engine& engine_;
  TurnWaiters waiters_;
};

}  // namespace rollcall
