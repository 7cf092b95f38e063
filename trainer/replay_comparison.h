// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "trainer/checkpoint.h"
#include "trainer/journal.h"
#include "trainer/metrics.h"

namespace rollcall {

// A number that a run left and that came out otherwise when it was computed again. Numbers are
// written so that they can be read back to the bit.
struct ReplayDifference {
  std::string what;  // "loss"; "advantage of row 17"
  std::string recorded, replayed;
};

// What was compared, and where it differs, in the order of the recording.
struct ReplayComparison {
  std::int64_t compared = 0;
  std::vector<ReplayDifference> differences;
};

// Every number to the bit, NaN being equal to NaN.
ReplayComparison compare_uses(std::span<const UpdateUse> recorded,
                              std::span<const UpdateUse> replayed);

// By name; left out are times, the state of the workers, and what only one side knows.
ReplayComparison compare_metrics(const MetricsLine& recorded, const MetricList& replayed);

// Weights, moments, critic and the state of the batch; not the journal rows that a checkpoint
// counts.
ReplayComparison compare_states(const TrainState& recorded, const TrainState& replayed);

}  // namespace rollcall
