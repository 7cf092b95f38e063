// SPDX-License-Identifier: Apache-2.0
#include "comms/error.h"

#include <utility>

namespace rollcall {

Error::Error(std::string what_and_where, std::string what_to_do, ExitCode code)
    : std::runtime_error(std::move(what_and_where)),
      what_to_do_(std::move(what_to_do)),
      code_(code) {}

Error input_error(std::string what_and_where, std::string what_to_do) {
  return Error(std::move(what_and_where), std::move(what_to_do), ExitCode::kBadInput);
}

}  // namespace rollcall
