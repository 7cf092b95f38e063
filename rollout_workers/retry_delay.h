// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <random>

#include "rollout_workers/http_client.h"
#include "rollout_workers/rollout_options.h"

namespace rollcall {

// Draws waits. Jitter is there to differ between workers, so it comes from the system's entropy: it
// changes when things happen, never what is computed. Single thread.
class RetryDelay {
 public:
  explicit RetryDelay(BackoffOptions);
  std::chrono::milliseconds draw(int retry);  // from 0
  std::chrono::milliseconds cap() const { return options_.cap; }

 private:
  BackoffOptions options_;
  std::mt19937 random_;
};

// The reply's Retry-After as a wait from now: seconds, or a date measured against the server's own
// Date.
std::optional<std::chrono::milliseconds> retry_after(const HttpReply&,
                                                     std::chrono::system_clock::time_point now);

}  // namespace rollcall
