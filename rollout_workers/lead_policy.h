// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "comms/rollout_link.h"
#include "rollout_workers/policy.h"
#include "rollout_workers/turn_waiters.h"

namespace rollcall {

// A Policy that the lead learner samples (policy.placement: learners): a turn is a message each
// way, of its own tokens alone. Coroutines wait until the thread's loop passes on what the link
// received. Single thread; the client outlives the policy, the policy its sessions.
class LeadPolicy final : public Policy {
 public:
  explicit LeadPolicy(RolloutClient& client) : client_(client) {}

  std::unique_ptr<PolicySession> open(std::span<const std::int32_t> prompt,
                                      std::uint64_t seed) override;
  asio::awaitable<Completion> complete(PolicySession&, std::span<const std::int32_t> delta,
                                       const SamplingOptions&) override;

  // Wakes the coroutine whose turn it is, if it still waits.
  void take(TurnReply);

 private:
  class Session;

  RolloutClient& client_;
  TurnWaiters waiters_;
  std::int64_t sessions_ = 0;  // opened so far
};

}  // namespace rollcall
