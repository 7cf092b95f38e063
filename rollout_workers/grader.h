// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <string>
#include <utility>

#include "comms/trajectory.h"
#include "rollout_workers/environment.h"
#include "rollout_workers/trace.h"

namespace rollcall {

struct GradeOutcome {
  Grade grade;  // reward filled in
  bool masked = false;
  std::string fault;  // not empty: there is no grade; holds no secrets
};

// Asks the grader until it gives a usable grade or its retries are used up. `purpose` makes the
// request's Idempotency-Key: a server must not answer a later grading with what it said to the
// first.
asio::awaitable<GradeOutcome> grade_rollout(Environment::Impl&, Trace&, std::string body,
                                            std::string purpose = "grade");

}  // namespace rollcall
