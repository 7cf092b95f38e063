// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace rollcall {

// How a program ended and what it said.
struct ProgramOutput {
  int start_error = 0;  // errno; nothing was started
  int code = 1;         // exit code; 1 for the end by a signal
  std::string text;     // both of its streams
};

// Runs a program on PATH and waits for its end. It reads nothing, and no signal is blocked in it,
// whatever this process has blocked: some could not wait for their own children then.
ProgramOutput program_output(std::vector<std::string> command);

}  // namespace rollcall
