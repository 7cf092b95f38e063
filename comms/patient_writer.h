// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace rollcall {

// Writes to a terminal or a pipe that nobody may be reading: never waits, keeps what does not go
// out at once, and drops the oldest lines of more than `most` bytes. A file is written at once.
// Single thread.
class PatientWriter {
 public:
  explicit PatientWriter(int descriptor, std::size_t most = std::size_t{64} << 10);
  ~PatientWriter();
  PatientWriter(const PatientWriter&) = delete;
  PatientWriter& operator=(const PatientWriter&) = delete;

  void write(const std::string& text);
  void drain();                                    // what goes out now
  void drain_for(std::chrono::milliseconds most);  // all, if it goes out in that time
  bool empty() const { return pending_.empty(); }

 private:
  int descriptor_;
  bool own_ = false;  // opened anew, so that others who share it go on waiting
  std::size_t most_;
  std::string pending_;
};

}  // namespace rollcall
