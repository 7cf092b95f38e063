// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/environment.h"

#include <algorithm>

namespace rollcall {

Environment::Impl::Impl(HttpClient& http_in, std::vector<ToolOptions> tools_in,
                        GraderOptions grader_in, std::string job_id_in, BackoffOptions backoff_in)
    : http(http_in),
      grader(std::move(grader_in)),
      grader_places(grader.max_concurrency),
      grader_rate(grader.rate_limit),
      job_id(std::move(job_id_in)),
      backoff(backoff_in) {
  for (auto& tool : tools_in) {
    redact.add(tool.secrets);
    tools.emplace_back(std::move(tool));
  }
  redact.add(grader.secrets);
}

ToolEndpoint* Environment::Impl::find_tool(std::string_view name) {
  const auto found = std::find_if(tools.begin(), tools.end(), [name](const ToolEndpoint& tool) {
    return tool.options.name == name;
  });
  return found == tools.end() ? nullptr : &*found;
}

Environment::Environment(HttpClient& http, std::vector<ToolOptions> tools, GraderOptions grader,
                         std::string job_id, BackoffOptions backoff)
    : impl_(std::make_unique<Impl>(http, std::move(tools), std::move(grader), std::move(job_id),
                                   backoff)) {}

Environment::~Environment() = default;

}  // namespace rollcall
