// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "comms/cuda/plugin_parts.h"

namespace rollcall::cuda {
namespace {

std::string& explanation() {
  thread_local std::string text;
  return text;
}

}  // namespace

int fail(const char* call, const char* why) {
  explanation() = std::string(call) + ": " + why;
  return 1;
}

const char* last_error() { return explanation().c_str(); }

}  // namespace rollcall::cuda
