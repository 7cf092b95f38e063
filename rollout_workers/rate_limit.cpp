// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/rate_limit.h"

#include <algorithm>

#include "rollout_workers/event.h"

namespace rollcall {

RateLimit::RateLimit(double per_second) {
  if (per_second > 0)
    interval_ = std::chrono::ceil<Clock::duration>(std::chrono::duration<double>(1 / per_second));
}

asio::awaitable<void> RateLimit::turn() {
  const auto now = Clock::now();
  const auto mine = std::max(now, next_);
  next_ = mine + interval_;
  if (mine > now) co_await sleep_for(std::chrono::ceil<std::chrono::milliseconds>(mine - now));
}

}  // namespace rollcall
