// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/grading_pool.h"

#include <asio/co_spawn.hpp>
#include <exception>

namespace rollcall {

void GradingPool::run(const std::function<asio::awaitable<void>()>& lane) {
  std::exception_ptr failure;
  for (int i = 0; i < most_at_once; ++i)
    asio::co_spawn(loop, lane(), [&](std::exception_ptr thrown) {
      if (!thrown || failure) return;
      failure = thrown;
      loop.stop();
    });
  loop.restart();
  loop.run();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace rollcall
