// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trainer/tensorboard.h"

namespace rollcall {

using MetricList = std::vector<std::pair<std::string, double>>;  // in the order written

// NaN if the list has none of the name.
double value_of(const MetricList&, const std::string& name);

// Nearest-rank percentile, `share` in [0, 1]; 0 for no values.
double percentile(std::vector<double> values, double share);

// Pearson's, of two lists of one length; NaN where one of the two does not vary.
double correlation(std::span<const double> x, std::span<const double> y);

struct MetricsLine {
  std::int64_t step = 0;
  double unix_seconds = 0;
  MetricList values;
};

// runs/<name>/metrics.jsonl: one JSON object a line, flushed line by line, and TensorBoard event
// files beside it. Single thread.
class MetricsLog {
 public:
  // Goes on from an earlier life: a torn last line and lines of steps after `resume_step` are cut,
  // in TensorBoard too; all lines if that is 0.
  MetricsLog(const std::filesystem::path& run_dir, std::int64_t resume_step);

  // A value that is not finite becomes null. Throws Error if the line cannot be written.
  void append(std::int64_t step, const MetricList&);

 private:
  std::filesystem::path file_;
  TensorBoardWriter events_;
};

// Reads metrics.jsonl, null as NaN, without a last line that has no newline. A missing file gives
// no lines. Throws Error "FILE:LINE: ..." for anything else that is not a line of metrics.
std::vector<MetricsLine> read_metrics(const std::filesystem::path& file);

}  // namespace rollcall
