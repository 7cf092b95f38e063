// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "comms/trajectory.h"
#include "rollout_workers/cookie_jar.h"
#include "rollout_workers/rollout_options.h"

namespace rollcall {

// One attempt's identity towards its servers. Dies with the attempt.
struct Trace {
  Trace(const Assignment&, const std::string& job_id);
  Trace(const Assignment&, const std::string& job_id, std::string trace_id);  // of one that was

  std::string id;
  std::string rollout;  // the same for every attempt
  HeaderList headers;   // X-Rft-*, on every request
  CookieJar cookies;
  int calls = 0;  // minted so far
};

}  // namespace rollcall
