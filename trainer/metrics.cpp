// SPDX-License-Identifier: Apache-2.0
#include "trainer/metrics.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "comms/durable_file.h"
#include "comms/error.h"

namespace rollcall {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kStep = "step";
constexpr const char* kTime = "unix_seconds";

double unix_seconds_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

std::string line_of(const MetricsLine& line) {
  Json object{{kStep, line.step}, {kTime, line.unix_seconds}};
  for (const auto& [name, value] : line.values) {
    object[name] = std::isfinite(value) ? Json(value) : Json(nullptr);
  }
  return object.dump() + "\n";
}

double number_of(const Json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

MetricsLine parse_line(const std::string& text) {
  const Json object = Json::parse(text);
  MetricsLine line{.step = object.at(kStep).get<std::int64_t>(),
                   .unix_seconds = object.at(kTime).get<double>(),
                   .values = {}};
  for (const auto& [name, value] : object.items()) {
    if (name != kStep && name != kTime) line.values.emplace_back(name, number_of(value));
  }
  return line;
}

std::string kept_lines(const std::filesystem::path& file, std::int64_t last_step) {
  std::string kept;
  for (const MetricsLine& line : read_metrics(file)) {
    if (line.step <= last_step) kept += line_of(line);
  }
  return kept;
}

}  // namespace

double value_of(const MetricList& list, const std::string& name) {
  const auto found = std::ranges::find(list, name, &MetricList::value_type::first);
  return found == list.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto at = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(at), values.end());
  return values[at];
}

double correlation(std::span<const double> x, std::span<const double> y) {
  const auto n = static_cast<double>(x.size());
  double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) mx += x[i] / n, my += y[i] / n;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mx) * (x[i] - mx);
    yy += (y[i] - my) * (y[i] - my);
    xy += (x[i] - mx) * (y[i] - my);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : std::numeric_limits<double>::quiet_NaN();
}

MetricsLog::MetricsLog(const std::filesystem::path& run_dir, std::int64_t resume_step)
    : file_(run_dir / "metrics.jsonl"), events_(run_dir, resume_step) {
  write_durably(file_, resume_step == 0 ? std::string() : kept_lines(file_, resume_step));
}

void MetricsLog::append(std::int64_t step, const MetricList& metrics) {
  const MetricsLine line{.step = step, .unix_seconds = unix_seconds_now(), .values = metrics};
  std::ofstream out(file_, std::ios::app);
  out << line_of(line) << std::flush;
  if (!out) {
    throw StorageError("cannot append to " + file_.string(),
                       "free some space in run.dir and start the run again: it resumes");
  }
  for (const auto& [name, value] : metrics) {
    events_.add_scalar(step, line.unix_seconds, name, value);
  }
  events_.flush();
}

std::vector<MetricsLine> read_metrics(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return {};
  const std::string bytes = read_file(file);
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
