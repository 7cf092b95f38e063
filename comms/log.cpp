// SPDX-License-Identifier: Apache-2.0
#include "comms/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <string>
#include <vector>

#include "comms/error.h"

namespace rollcall {
namespace {

std::shared_ptr<spdlog::logger> make_default() {
  auto logger = std::make_shared<spdlog::logger>(
      "rollcall", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
  logger->set_level(spdlog::level::warn);
  return logger;
}

std::shared_ptr<spdlog::logger>& logger() {
  static std::shared_ptr<spdlog::logger> instance = make_default();
  return instance;
}

}  // namespace

void log_open(int rank, const std::filesystem::path& file, bool console) {
  std::vector<spdlog::sink_ptr> sinks;
  try {
    sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string()));
  } catch (const spdlog::spdlog_ex& error) {
    throw Error("cannot write the log file " + file.string() + ": " + error.what(),
                "check the permissions and the free space of run.dir");
  }
  sinks.back()->set_level(spdlog::level::debug);
  auto to_stderr = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  to_stderr->set_level(console ? spdlog::level::info : spdlog::level::err);
  sinks.push_back(to_stderr);
  auto opened = std::make_shared<spdlog::logger>("rollcall", sinks.begin(), sinks.end());
  opened->set_level(spdlog::level::debug);
  opened->set_pattern("%Y-%m-%d %H:%M:%S.%e [%^%l%$] rank " + std::to_string(rank) + ": %v");
  opened->flush_on(spdlog::level::debug);  // a rank may be killed at any moment
  logger() = std::move(opened);
}

void log_debug(std::string_view text) { logger()->debug(text); }
void log_info(std::string_view text) { logger()->info(text); }
void log_warning(std::string_view text) { logger()->warn(text); }
void log_error(std::string_view text) { logger()->error(text); }
void log_flush() { logger()->flush(); }

}  // namespace rollcall
