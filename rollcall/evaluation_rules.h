// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comms/task.h"
#include "configs/run_config.h"

namespace rollcall {

// What the policy sees and may do, as the two run files have it: chat settings, weights' type,
// tools and what becomes of their output, limits of a rollout. One line for each difference:
// "rollout. max_turns is 6, it was 8". Tokens are sampled at temperature 1 in training and
// evaluation alike.
std::vector<std::string> differences_of(const RunConfig& trained, const RunConfig& evaluated);

// Functions that held-out rows offer and no training row offers so (name, description, parameters),
// a line for each, ten at most.
std::vector<std::string> unknown_functions(const std::vector<Task>& train,
                                           const std::vector<Task>& valid);

// How many held-out rows have the contents of a training row, whatever the order of their keys, and
// the first ten as "FILE:LINE is FILE:LINE".
struct Overlap {
  std::int64_t rows = 0;
  std::vector<std::string> places;
};
Overlap overlap_of(const std::string& train_file, const std::vector<Task>& train,
                   const std::string& valid_file, const std::vector<Task>& valid);

}  // namespace rollcall
