// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace rollcall {

using MetricList = std::vector<std::pair<std::string, double>>;  // in the order written

// runs/<name>/metrics.jsonl: one JSON object a line, flushed line by line. Single thread.
class MetricsLog {
 public:
  // Goes on from an earlier life: a torn last line and lines of steps after `resume_step` are cut.
  MetricsLog(const std::filesystem::path& run_dir, std::int64_t resume_step);

  // Throws Error if the line cannot be written.
  void append(std::int64_t step, const MetricList&);

 private:
  std::filesystem::path file_;
};

}  // namespace rollcall
