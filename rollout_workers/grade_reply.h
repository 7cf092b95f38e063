// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "comms/trajectory.h"
#include "rollout_workers/rollout_options.h"

namespace rollcall {

struct GradeReply {
  Grade grade;            // reward and passed not yet filled in
  bool masked = false;    // the grader asked to leave the sample out
  std::string error;      // not empty: there is no grade, and this is why, in the grader's words
  bool retryable = true;  // of the error
};

// Reads an endpoint grader's reply. A score that is missing, given twice, no finite number, or a
// gate that is no boolean is an error: no guess ever becomes a reward.
GradeReply read_grade_reply(std::string_view body);

// The first of the options' gates and parts that the reply's sub_rewards lack; empty: none. Without
// it there is no grade.
std::string missing_part(const GraderOptions&, const Grade&);

// Fills in grade.reward, gates before flags before parts and score, and grade.passed. Gates of the
// options join those of the reply. Returns true if a flag masks the sample, as kUnconfirmedFlag
// does unless the options say otherwise.
bool apply_grade_rules(const GraderOptions&, Grade& grade);

}  // namespace rollcall
