// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "trainer/tensorboard.h"

namespace rollcall {

// In the order in which they are written. Names: metric_names.h.
using Metrics = std::vector<std::pair<std::string, double>>;

struct MetricsLine {
  std::int64_t step = 0;
  double time_unix_s = 0;
  Metrics values;
};

// What a person watches: RUN/metrics.jsonl, one JSON object a line, and TensorBoard event files
// beside it. Single thread.
class MetricsLog {
 public:
  // Creates the files, or goes on: a last line torn by a crash and the lines of steps >=
  // `resume_step` are cut off, in TensorBoard too.
  MetricsLog(const std::filesystem::path& run_dir, std::int64_t resume_step);

  // Appends one line and hands it to the operating system. A value that is not finite becomes null.
  // Throws Error if the disk is full.
  void write(std::int64_t step, double time_unix_s, const Metrics& values);

 private:
  std::filesystem::path file_;
  std::ofstream out_;
  TensorBoardWriter events_;
};

// Reads metrics.jsonl; a last line without a newline is left out, null is NaN. A missing file gives
// no lines. Throws Error "FILE:LINE: ..." for anything else that is not a metrics line.
std::vector<MetricsLine> read_metrics(const std::filesystem::path& file);

}  // namespace rollcall
