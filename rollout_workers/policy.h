// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <cstdint>
#include <memory>
#include <span>

#include "comms/turn.h"

namespace rollcall {

// One rollout's place in the policy: its tokens so far and their cache. Closed by destruction.
class PolicySession {
 public:
  virtual ~PolicySession() = default;
};

// What the agent loop sees of the model, wherever it is sampled. Single thread.
class Policy {
 public:
  virtual ~Policy() = default;
  virtual std::unique_ptr<PolicySession> open(std::span<const std::int32_t> prompt,
                                              std::uint64_t seed) = 0;
  // Appends `delta` and samples one turn.
  virtual asio::awaitable<Completion> complete(PolicySession&, std::span<const std::int32_t> delta,
                                               const SamplingOptions&) = 0;
};

}  // namespace rollcall
