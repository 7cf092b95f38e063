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

// Held-out rows that show the policy what no training row does, a line for each novelty, ten at
// most: a function (name, description, parameters); and where training rows share their sets of
// functions or their system messages, most of them at least, another set or another message.
std::vector<std::string> novelties(const std::vector<Task>& train, const std::vector<Task>& valid);

// How many held-out rows are training rows, and the first ten as "FILE:LINE is FILE:LINE": those
// with the same messages and with the same values of all keys that both have, but for `id`.
struct Overlap {
  std::int64_t rows = 0;
  std::vector<std::string> places;
};
Overlap overlap_of(const std::string& train_file, const std::vector<Task>& train,
                   const std::string& valid_file, const std::vector<Task>& valid);

}  // namespace rollcall
