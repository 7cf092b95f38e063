// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/trace.h"

#include <utility>

#include "rollout_workers/ids.h"

namespace rollcall {

Trace::Trace(const Assignment& a, const std::string& job_id) : Trace(a, job_id, make_trace_id()) {}

Trace::Trace(const Assignment& a, const std::string& job_id, std::string trace_id)
    : id(std::move(trace_id)),
      rollout(rollout_id(a)),
      headers{{"X-Rft-Job-Id", job_id},
              {"X-Rft-Rollout-Id", rollout},
              {"X-Rft-Attempt", std::to_string(a.attempt)},
              {"X-Rft-Trace-Id", id},
              {"X-Rft-Step", std::to_string(a.step)},
              {"X-Rft-Split", to_string(a.split)}} {}

}  // namespace rollcall
