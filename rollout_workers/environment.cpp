// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/environment.h"

#include <algorithm>

#include "rollout_workers/url.h"

namespace rollcall {

namespace {

Redactor redactor_of(const std::vector<ToolOptions>& tools, const GraderOptions& grader) {
  Redactor redact;
  for (const auto& tool : tools) redact.add(tool.secrets);
  redact.add(grader.secrets);
  redact.add(grader.second.secrets);
  return redact;
}

template <class Options>
Endpoint::Options endpoint_options(const std::string& name, const Options& options,
                                   const Redactor& redact, const BackoffOptions& backoff) {
  const UrlParts parts = split_url(options.url);  // a query may be private
  return {.name = name,
          .address = redact.line(parts.origin() + parts.path, 200),
          .max_concurrency = options.max_concurrency,
          .rate_limit = options.rate_limit,
          .give_up_after = options.give_up_after,
          .longest_ask = options.timeout,
          .probes = {2 * backoff.base, backoff.cap}};
}

}  // namespace

ToolEndpoint::ToolEndpoint(ToolOptions options_in, const Redactor& redact,
                           const BackoffOptions& backoff)
    : options(std::move(options_in)),
      endpoint(endpoint_options("tool " + options.name, options, redact, backoff)) {}

Environment::Impl::Impl(HttpClient& http_in, std::vector<ToolOptions> tools_in,
                        GraderOptions grader_in, std::string job_id_in, BackoffOptions backoff_in)
    : http(http_in),
      redact(redactor_of(tools_in, grader_in)),
      grader(std::move(grader_in)),
      grader_endpoint(endpoint_options("grader", grader, redact, backoff_in)),
      job_id(std::move(job_id_in)),
      backoff(backoff_in) {
  if (!grader.second.url.empty())
    second_endpoint.emplace(endpoint_options("second grader", grader.second, redact, backoff_in));
  for (auto& tool : tools_in) tools.emplace_back(std::move(tool), redact, backoff_in);
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

bool Environment::congested() const {
  return impl_->grader_endpoint.congested() ||
         (impl_->second_endpoint && impl_->second_endpoint->congested()) ||
         std::any_of(impl_->tools.begin(), impl_->tools.end(),
                     [](const ToolEndpoint& tool) { return tool.endpoint.congested(); });
}

std::vector<EndpointStatus> Environment::endpoints() const {
  std::vector<EndpointStatus> all{impl_->grader_endpoint.status()};
  if (impl_->second_endpoint) all.push_back(impl_->second_endpoint->status());
  for (const auto& tool : impl_->tools) all.push_back(tool.endpoint.status());
  std::erase_if(all, [](const EndpointStatus& s) { return s.openings == 0 && s.retries == 0; });
  return all;
}

}  // namespace rollcall
