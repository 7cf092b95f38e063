// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "model/engine_backend.h"

namespace rollcall {

// How many rows of prompts and tool answers a round takes: what is computed in about a quarter of a
// second where decoding waits for them, else in half a second, since heartbeats and requests wait
// for either; but never so few that weights are read for little.
class PrefillPace {
 public:
  static constexpr std::int64_t kLeastRows = 64;

  std::int64_t rows(bool decoding_waits) const {
    return decoding_waits ? rows_
                          : within(2 * of_a_quarter_, std::min(2 * rows_, kMostPrefillRows));
  }

  // A round of so many rows, kLeastRows or more, took so long.
  void add(std::int64_t rows, double seconds) {
    of_a_quarter_ = 0.25 * static_cast<double>(rows) / std::max(seconds, 1e-9);
    rows_ = within(of_a_quarter_, std::min(2 * rows_, kMostPrefillRows));
  }

 private:
  static std::int64_t within(double rows, std::int64_t most) {
    return static_cast<std::int64_t>(
        std::clamp(rows, static_cast<double>(kLeastRows), static_cast<double>(most)));
  }

  double of_a_quarter_ = 0;  // rows of a quarter of a second, as measured last
  std::int64_t rows_ = kLeastRows;
};

}  // namespace rollcall
