// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <string_view>

namespace rollcall {

// What a person watching a run sees on standard error: one line redrawn in place on a terminal;
// without one, the same line at most every ten seconds. Single thread.
class Progress {
 public:
  explicit Progress(bool live) : live_(live) {}
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(std::string_view line);  // replaces the line shown
  void keep(std::string_view line);  // stays on the screen; a new line begins
  void clear();                      // makes room for what others print
  void finish();                     // ends a line left open

 private:
  bool live_;
  bool open_ = false;
  std::chrono::steady_clock::time_point shown_{};
};

}  // namespace rollcall
