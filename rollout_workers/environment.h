// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <string>
#include <string_view>

#include "rollout_workers/rate_limit.h"
#include "rollout_workers/redact.h"
#include "rollout_workers/retry_delay.h"
#include "rollout_workers/rollout.h"
#include "rollout_workers/semaphore.h"

namespace rollcall {

// A tool's endpoint as all rollouts of this worker share it.
struct ToolEndpoint {
  explicit ToolEndpoint(ToolOptions options_in)
      : options(std::move(options_in)), places(options.max_concurrency), rate(options.rate_limit) {}
  ToolOptions options;
  Semaphore places;
  RateLimit rate;
  bool replays = false;  // has shown that it honours Idempotency-Key
};

struct Environment::Impl {
  Impl(HttpClient& http_in, std::vector<ToolOptions> tools_in, GraderOptions grader_in,
       std::string job_id_in, BackoffOptions backoff_in);

  ToolEndpoint* find_tool(std::string_view name);

  HttpClient& http;
  std::deque<ToolEndpoint> tools;
  GraderOptions grader;
  Semaphore grader_places;
  RateLimit grader_rate;
  std::string job_id;
  RetryDelay backoff;
  Redactor redact;
};

}  // namespace rollcall
