// SPDX-License-Identifier: Apache-2.0
#include "trainer/endpoint_use.h"

#include "trainer/metrics.h"

namespace rollcall {
namespace {

struct Calls {
  EndpointUse use;
  std::vector<double> seconds;

  void add(double latency_s, std::int32_t retries, bool is_error) {
    ++use.calls;
    use.retries += retries;
    use.errors += is_error ? 1 : 0;
    seconds.push_back(latency_s);
  }
};

}  // namespace

std::vector<EndpointUse> endpoint_uses(std::span<const Collected> collected) {
  std::map<std::string, Calls> all;
  for (const Collected& c : collected) {
    const Trajectory& t = *c.trajectory;
    for (const ToolEvent& e : t.tool_events)
      if (e.status != 0) all["tool " + e.name].add(e.latency_s, e.retries, e.is_error);
    const bool graded = t.fault == FaultReason::kNone || t.fault == FaultReason::kMasked;
    if (graded && t.grade.latency_s > 0)
      all["grader"].add(t.grade.latency_s, t.grade.retries, /*is_error=*/false);
  }
  std::vector<EndpointUse> uses;
  for (auto& [name, calls] : all) {
    calls.use.name = name;
    calls.use.seconds_p50 = percentile(calls.seconds, 0.5);
    calls.use.seconds_p95 = percentile(calls.seconds, 0.95);
    uses.push_back(calls.use);
  }
  return uses;
}

std::map<std::string, std::int64_t> left_out_by_reason(std::span<const Collected> collected) {
  std::map<std::string, std::int64_t> reasons;
  for (const Collected& c : collected)
    if (c.trajectory->fault != FaultReason::kNone) ++reasons[to_string(c.trajectory->fault)];
  return reasons;
}

}  // namespace rollcall
