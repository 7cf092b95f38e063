// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

namespace rollcall {

// What the process tells the shell. Scripts and Slurm templates rely on these numbers.
enum class ExitCode : int {
  kDone = 0,
  kFailure = 1,     // anything without a code of its own
  kBadInput = 2,    // a config, dataset or checkpoint is wrong
  kStopped = 3,     // stopped on request or by a lost process; resumable
  kAlarm = 4,       // an alarm stopped the run
  kNoEndpoint = 5,  // a tool server or grader never answered
};

// The only exception that Rollcall throws. The message says what happened and where; the hint says
// what to do next. main() logs both and ends all ranks with the exit code.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string what_and_where, std::string what_to_do = {},
                 ExitCode code = ExitCode::kFailure);

  const std::string& what_to_do() const { return what_to_do_; }
  ExitCode exit_code() const { return code_; }

 private:
  std::string what_to_do_;
  ExitCode code_;
};

// A file could not be written, for a reason outside of this program: what was complete before is
// intact, and a run can go on once the reason is gone.
class StorageError : public Error {
 public:
  using Error::Error;
};

// What an exception of the JSON library says, without the name that the library gives it.
std::string json_reason(const std::exception&);

// An Error about the user's input: exit code 2.
Error input_error(std::string what_and_where, std::string what_to_do = {});

}  // namespace rollcall
