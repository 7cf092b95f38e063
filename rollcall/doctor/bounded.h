// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "rollcall/doctor/finding.h"

namespace rollcall {

// How a child process ended.
struct BoundedEnd {
  bool in_time = false;
  int code = -1;     // exit code; -1: ended by a signal or not in time
  int signal = 0;    // that ended it
  std::string text;  // what it wrote, the first MiB
  double seconds = 0;
};

// Runs `body` in a forked child, whose exit code it returns; what it writes to the descriptor that
// it is given is collected. A child that takes longer than `limit` is told to end (SIGTERM, twice),
// then killed; one that not even that ends (a file system that hangs) is left alone. Only for a
// process of one thread.
BoundedEnd run_bounded(std::chrono::milliseconds limit, const std::function<int(int)>& body);

// The same for a program on PATH: both of its streams; code 127 if it cannot be started.
BoundedEnd run_program(std::chrono::milliseconds limit, std::vector<std::string> command);

// A check and how long it may take.
struct Check {
  std::string what;
  std::chrono::seconds limit;
  std::function<std::vector<Finding>()> body;
};

// Runs the check in a child: a check that hangs, crashes or throws is a finding too.
std::vector<Finding> run_check(const Check&);

}  // namespace rollcall
