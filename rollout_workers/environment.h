// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>

#include "rollout_workers/endpoint.h"
#include "rollout_workers/redact.h"
#include "rollout_workers/retry_delay.h"
#include "rollout_workers/rollout.h"

namespace rollcall {

struct ToolEndpoint {
  ToolEndpoint(ToolOptions options_in, const Redactor&, const BackoffOptions&);
  ToolOptions options;
  Endpoint endpoint;
  bool replays = false;  // has shown that it honours Idempotency-Key
};

struct Environment::Impl {
  Impl(HttpClient& http_in, std::vector<ToolOptions> tools_in, GraderOptions grader_in,
       std::string job_id_in, BackoffOptions backoff_in);

  ToolEndpoint* find_tool(std::string_view name);

  HttpClient& http;
  Redactor redact;
  std::deque<ToolEndpoint> tools;
  GraderOptions grader;
  Endpoint grader_endpoint;
  std::optional<Endpoint> second_endpoint;  // of grader.second
  std::string job_id;
  RetryDelay backoff;
};

}  // namespace rollcall
