// SPDX-License-Identifier: Apache-2.0
#include "trainer/metrics.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "comms/error.h"

namespace rollcall {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kStep = "step";
constexpr const char* kTime = "time_unix_s";

std::string line_of(std::int64_t step, double time_unix_s, const Metrics& values) {
  Json line;
  line[kStep] = step;
  line[kTime] = time_unix_s;
  for (const auto& [name, value] : values) {
    line[name] = std::isfinite(value) ? Json(value) : Json(nullptr);
  }
  return line.dump() + "\n";
}

double number_of(const Json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

MetricsLine parse_line(const std::string& text) {
  const Json json = Json::parse(text);
  MetricsLine line;
  line.step = json.at(kStep).get<std::int64_t>();
  line.time_unix_s = json.at(kTime).get<double>();
  for (const auto& [name, value] : json.items()) {
    if (name != kStep && name != kTime) line.values.emplace_back(name, number_of(value));
  }
  return line;
}

std::string bytes_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return bytes.str();
}

// Writes the lines that a resume at `step` keeps over the file, aside and by rename.
void keep_lines_before(const std::filesystem::path& file, std::int64_t step) {
  if (!std::filesystem::exists(file)) return;
  const std::filesystem::path aside = file.string() + ".new";
  {
    std::ofstream out(aside, std::ios::binary | std::ios::trunc);
    for (const MetricsLine& line : read_metrics(file)) {
      if (line.step < step) out << line_of(line.step, line.time_unix_s, line.values);
    }
    if (!out.flush()) {
      throw Error("metrics: cannot write " + aside.string() + ": " + std::strerror(errno),
                  "check free space and permissions");
    }
  }
  std::error_code failed;
  std::filesystem::rename(aside, file, failed);
  if (failed) throw Error("metrics: cannot replace " + file.string() + ": " + failed.message());
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& run_dir, std::int64_t resume_step)
    : file_(run_dir / "metrics.jsonl"), events_(run_dir, resume_step) {
  keep_lines_before(file_, resume_step);
  out_.open(file_, std::ios::binary | std::ios::app);
  if (!out_) {
    throw Error("metrics: cannot open " + file_.string() + ": " + std::strerror(errno),
                "check that the run's folder exists and is writable");
  }
}

void MetricsLog::write(std::int64_t step, double time_unix_s, const Metrics& values) {
  out_ << line_of(step, time_unix_s, values) << std::flush;
  if (!out_) {
    throw Error("metrics: cannot write " + file_.string() + ": " + std::strerror(errno),
                "free some space, then start the run again to resume");
  }
  for (const auto& [name, value] : values) events_.add_scalar(step, time_unix_s, name, value);
  events_.flush();
}

std::vector<MetricsLine> read_metrics(const std::filesystem::path& file) {
  const std::string bytes = bytes_of(file);
  std::vector<MetricsLine> lines;
  std::size_t begin = 0;
  for (std::size_t end; (end = bytes.find('\n', begin)) != std::string::npos; begin = end + 1) {
    try {
      lines.push_back(parse_line(bytes.substr(begin, end - begin)));
    } catch (const nlohmann::json::exception& error) {
      throw input_error(file.string() + ":" + std::to_string(lines.size() + 1) +
                            ": not a line of metrics: " + error.what(),
                        "remove that line");
    }
  }
  return lines;
}

}  // namespace rollcall
