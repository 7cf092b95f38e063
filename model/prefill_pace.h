// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "model/engine_backend.h"

namespace rollcall {

// How many rows of prompts and tool answers a round takes: what is computed in about a quarter of a
// second where decoding waits for them, and in a second where only a worker's heartbeat does; but
// never so few that weights are read for little.
class PrefillPace {
 public:
  static constexpr std::int64_t kLeastRows = 64;

  std::int64_t rows(bool decoding_waits) const {
    return decoding_waits ? rows_ : std::min(4 * rows_, kMostPrefillRows);
  }

  // A round of so many rows, kLeastRows or more, took so long.
  void add(std::int64_t rows, double seconds) {
    const double wanted = kSeconds * static_cast<double>(rows) / std::max(seconds, 1e-9);
    const std::int64_t most = std::min(2 * rows_, kMostPrefillRows);
    rows_ = static_cast<std::int64_t>(
        std::clamp(wanted, static_cast<double>(kLeastRows), static_cast<double>(most)));
  }

 private:
  static constexpr double kSeconds = 0.25;
  std::int64_t rows_ = kLeastRows;
};

}  // namespace rollcall
