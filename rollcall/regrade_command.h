// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace rollcall {

struct RegradeArguments {
  std::filesystem::path run_dir;
  std::filesystem::path config;        // whose grader is asked; empty: the run's own
  std::vector<std::string> overrides;  // grader.a.b=value
  std::string steps;                   // "A..B" or "A"; empty: all
  std::string split;                   // train or valid; empty: both
  bool only_passed = false;
  std::int64_t sample = 0;  // at most so many, evenly over the rows; 0: all
  std::string name;         // of the report; empty: the time
  bool json = false;
};

// Has stored rollouts graded again and tells what would change; writes
// RUN/regrade-<name>.json and nothing else. Throws Error: kBadInput for a run without a journal or
// with other datasets than it began with, kNoEndpoint if the grader does not answer.
int regrade_command(const RegradeArguments&);

}  // namespace rollcall
