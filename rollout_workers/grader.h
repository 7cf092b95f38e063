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

// Has a rollout that passed graded once more: by grader.second, or else by the same grader. If that
// does not pass, the grade gets the flag kUnconfirmedFlag with what the options make of it; a fault
// changes nothing. Either is noted among the sub-rewards.
asio::awaitable<void> confirm_grade(Environment::Impl&, Trace&, std::string body,
                                    GradeOutcome& outcome, std::string purpose = "confirm");

// Has a rollout graded by grader.second too, which must be there, and notes beside the grade what
// it says (kSecondPassed, kSecondScore). The grade stays; a fault notes nothing.
asio::awaitable<void> grade_beside(Environment::Impl&, Trace&, std::string body,
                                   GradeOutcome& outcome);

// Makes the outcome part of the rollout, with what its limits, void turns and budgets make of it.
void settle_grade(const RolloutOptions&, const GraderOptions&, GradeOutcome outcome, Trajectory&);

// Whether neither a limit that it met nor a void turn takes the rollout's grade away.
bool keeps_grade(const RolloutOptions&, const Trajectory&);

}  // namespace rollcall
