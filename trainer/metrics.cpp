// SPDX-License-Identifier: Apache-2.0
#include "trainer/metrics.h"

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "comms/durable_file.h"
#include "comms/error.h"

namespace rollcall {
namespace {

// The lines that are whole and of steps up to `last_step`.
std::string kept_lines(const std::filesystem::path& file, std::int64_t last_step) {
  std::ifstream in(file);
  std::string kept;
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("step") || json["step"].get<std::int64_t>() > last_step) break;
    kept += line + "\n";
  }
  return kept;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& run_dir, std::int64_t resume_step) : file_(run_dir / "metrics.jsonl") {
  write_durably(file_, resume_step == 0 ? std::string() : kept_lines(file_, resume_step));
}

void MetricsLog::append(std::int64_t step, const MetricList& metrics) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  nlohmann::ordered_json line{{"step", step}, {"unix_seconds", std::chrono::duration<double>(now).count()}};
  for (const auto& [name, value] : metrics) line[name] = value;
  std::ofstream out(file_, std::ios::app);
  out << line.dump() << "\n" << std::flush;
  if (!out) throw Error("cannot append to " + file_.string(), "free some space in run.dir and start the run again: it resumes", ExitCode::kStopped);
}

}  // namespace rollcall
