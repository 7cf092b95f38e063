// SPDX-License-Identifier: Apache-2.0
#include "comms/error.h"

#include <utility>

namespace rollcall {

Error::Error(std::string what_and_where, std::string what_to_do, ExitCode code)
    : std::runtime_error(std::move(what_and_where)),
      what_to_do_(std::move(what_to_do)),
      code_(code) {}

std::string json_reason(const std::exception& error) {
  const std::string text = error.what();  // "[json.exception.NAME.NUMBER] REASON"
  const auto end = text.starts_with("[json.exception.") ? text.find("] ") : std::string::npos;
  return end == std::string::npos ? text : text.substr(end + 2);
}

Error input_error(std::string what_and_where, std::string what_to_do) {
  return Error(std::move(what_and_where), std::move(what_to_do), ExitCode::kBadInput);
}

}  // namespace rollcall
