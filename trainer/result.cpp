// SPDX-License-Identifier: Apache-2.0
#include "trainer/result.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/log.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

constexpr const char* kStatusNames[] = {"running", "done", "stopped", "failed"};

std::filesystem::path result_file(const std::filesystem::path& run_dir) {
  return run_dir / "result.json";
}

RunStatus status_of(const std::string& name) {
  for (int i = 0; i < 4; ++i)
    if (name == kStatusNames[i]) return static_cast<RunStatus>(i);
  throw Error("result.json: unknown status '" + name + "'");
}

ordered_json rate_to_json(double rate) {
  return std::isfinite(rate) ? ordered_json(rate) : ordered_json();
}

double rate_of(const ordered_json& json) {
  return json.is_null() ? Evaluation::kNone : json.get<double>();
}

ordered_json to_json(const Evaluation& e) {
  return {{"pass_at_1", rate_to_json(e.pass_at_1)},
          {"low_95", rate_to_json(e.low_95)},
          {"high_95", rate_to_json(e.high_95)},
          {"tasks", e.tasks},
          {"samples", e.samples},
          {"graded_tasks", e.graded_tasks},
          {"faults", e.faults},
          {"masked", e.masked}};
}

ordered_json to_json(const std::optional<Evaluation>& e) {
  return e ? to_json(*e) : ordered_json();
}

std::optional<Evaluation> evaluation_of(const ordered_json& json) {
  if (json.is_null()) return std::nullopt;
  Evaluation e;
  e.pass_at_1 = rate_of(json.at("pass_at_1"));
  e.low_95 = rate_of(json.at("low_95"));
  e.high_95 = rate_of(json.at("high_95"));
  e.tasks = json.at("tasks");
  e.samples = json.at("samples");
  e.graded_tasks = json.at("graded_tasks");
  e.faults = json.at("faults");
  e.masked = json.at("masked");
  return e;
}

}  // namespace

std::string evaluation_json(const Evaluation& e) { return to_json(e).dump(); }

void write_result(const std::filesystem::path& run_dir, const RunResult& r) {
  const ordered_json json{{"status", kStatusNames[static_cast<int>(r.status)]},
                          {"exit_code", r.exit_code},
                          {"step", r.step},
                          {"eval", {{"before", to_json(r.before)}, {"after", to_json(r.after)}}},
                          {"checkpoint", r.checkpoint},
                          {"export", r.export_dir},
                          {"adapter", r.adapter_dir},
                          {"report", r.report},
                          {"message", r.message}};
  write_durably(result_file(run_dir),
                json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

std::optional<RunResult> read_result(const std::filesystem::path& run_dir) {
  if (!std::filesystem::exists(result_file(run_dir))) return std::nullopt;
  try {
    const ordered_json json = ordered_json::parse(read_file(result_file(run_dir)));
    RunResult r;
    r.status = status_of(json.at("status"));
    r.exit_code = json.at("exit_code");
    r.step = json.at("step");
    r.before = evaluation_of(json.at("eval").at("before"));
    r.after = evaluation_of(json.at("eval").at("after"));
    r.checkpoint = json.at("checkpoint");
    r.export_dir = json.at("export");
    r.adapter_dir = json.value("adapter", "");
    r.report = json.at("report");
    r.message = json.at("message");
    return r;
  } catch (const nlohmann::json::exception& error) {
    log_warning(result_file(run_dir).string() +
                " holds no result, it is written anew: " + error.what());
  } catch (const Error& error) {
    log_warning(result_file(run_dir).string() + " is written anew: " + error.what());
  }
  return std::nullopt;
}

void mark_result_running(const std::filesystem::path& run_dir) {
  RunResult r = read_result(run_dir).value_or(RunResult{});
  r.status = RunStatus::kRunning;
  r.exit_code = 0;
  r.message.clear();
  write_result(run_dir, r);
}

}  // namespace rollcall
