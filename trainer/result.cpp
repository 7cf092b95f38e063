// SPDX-License-Identifier: Apache-2.0
#include "trainer/result.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

namespace rollcall {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kStatuses = {RunStatus::kDone, RunStatus::kStopped, RunStatus::kFailed};

Json json_of(const EvalResult& eval) {
  return {{"pass_at_1", eval.pass_at_1}, {"tasks", eval.tasks}, {"samples", eval.samples}};
}

Json json_of(const RunResult& result) {
  Json json;
  json["status"] = to_string(result.status);
  json["exit_code"] = static_cast<int>(result.exit_code);
  json["step"] = result.step;
  json["eval"] = Json::object();
  if (result.before) json["eval"]["before"] = json_of(*result.before);
  if (result.after) json["eval"]["after"] = json_of(*result.after);
  const auto path_or_null = [](const std::string& path) {
    return path.empty() ? Json(nullptr) : Json(path);
  };
  json["checkpoint"] = path_or_null(result.checkpoint);
  json["export"] = path_or_null(result.export_dir);
  json["report"] = path_or_null(result.report);
  json["message"] = result.message;
  return json;
}

RunStatus status_of(const std::string& name) {
  for (const RunStatus status : kStatuses) {
    if (name == to_string(status)) return status;
  }
  throw Error("unknown status '" + name + "'");
}

std::optional<EvalResult> eval_of(const Json& eval, const char* name) {
  if (!eval.contains(name)) return std::nullopt;
  const Json& json = eval.at(name);
  return EvalResult{.pass_at_1 = json.at("pass_at_1").get<double>(),
                    .tasks = json.at("tasks").get<std::int64_t>(),
                    .samples = json.at("samples").get<std::int64_t>()};
}

RunResult result_of(const Json& json) {
  const auto text = [&](const char* name) {
    return json.at(name).is_null() ? std::string() : json.at(name).get<std::string>();
  };
  RunResult result;
  result.status = status_of(text("status"));
  result.exit_code = static_cast<ExitCode>(json.at("exit_code").get<int>());
  result.step = json.at("step").get<std::int64_t>();
  result.before = eval_of(json.at("eval"), "before");
  result.after = eval_of(json.at("eval"), "after");
  result.checkpoint = text("checkpoint");
  result.export_dir = text("export");
  result.report = text("report");
  result.message = text("message");
  return result;
}

// True if all of `text` is on disk under `file`.
bool write_synced(const std::filesystem::path& file, const std::string& text) {
  const int descriptor = ::open(file.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
  if (descriptor < 0) return false;
  const bool written =
      ::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      ::fsync(descriptor) == 0;
  const int reason = errno;
  ::close(descriptor);
  errno = reason;
  return written;
}

}  // namespace

const char* to_string(RunStatus status) {
  constexpr std::array kNames = {"done", "stopped", "failed"};
  return kNames.at(static_cast<std::size_t>(status));
}

void write_result(const std::filesystem::path& file, const RunResult& result) {
  const std::filesystem::path aside = file.string() + ".new";
  const std::string text =
      json_of(result).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (!write_synced(aside, text) || ::rename(aside.c_str(), file.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    std::error_code ignored;
    std::filesystem::remove(aside, ignored);
    throw Error("cannot write " + file.string() + ": " + reason,
                "check free space and permissions");
  }
}

std::optional<RunResult> read_result(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return std::nullopt;
  try {
    return result_of(Json::parse(in));
  } catch (const std::exception& error) {
    throw input_error(file.string() + ": not a result of a run: " + error.what(),
                      "delete the file if the run is not needed");
  }
}

}  // namespace rollcall
