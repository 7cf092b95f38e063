// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace rollcall {

// How one worker fares with a tool server or the grader. Counts are since the worker's start.
struct EndpointStatus {
  std::string name;           // "grader", "tool get"
  std::string address;        // scheme, host, port and path, without secrets
  bool waiting = false;       // nothing but a probe now and then is sent: it does not answer
  std::int32_t held = 0;      // calls that wait for it
  double down_s = 0;          // while waiting: for how long
  std::string error;          // the last failure in one line, without secrets
  double waited_s = 0;        // time in which calls were held
  std::int64_t openings = 0;  // how often sending to it was stopped
  std::int64_t retries = 0;   // tries after a request's first

  friend bool operator==(const EndpointStatus&, const EndpointStatus&) = default;
};

}  // namespace rollcall
