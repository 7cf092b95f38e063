// SPDX-License-Identifier: Apache-2.0
#include "trainer/result.h"

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

ordered_json to_json(const std::optional<EvalScore>& score) {
  if (!score) return nullptr;
  return {{"pass_at_1", score->pass_at_1},
          {"low_95", score->low_95},
          {"high_95", score->high_95},
          {"tasks", score->tasks},
          {"samples", score->samples}};
}

std::optional<EvalScore> score_of(const ordered_json& json) {
  if (json.is_null()) return std::nullopt;
  return EvalScore{json.at("pass_at_1"), json.at("low_95"), json.at("high_95"), json.at("tasks"),
                   json.at("samples")};
}

}  // namespace

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
  write_durably(result_file(run_dir), json.dump(2) + "\n");
}

std::optional<RunResult> read_result(const std::filesystem::path& run_dir) {
  if (!std::filesystem::exists(result_file(run_dir))) return std::nullopt;
  try {
    const ordered_json json = ordered_json::parse(read_file(result_file(run_dir)));
    RunResult r;
    r.status = status_of(json.at("status"));
    r.exit_code = json.at("exit_code");
    r.step = json.at("step");
    r.before = score_of(json.at("eval").at("before"));
    r.after = score_of(json.at("eval").at("after"));
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
