// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

// A place in a run file (counted from 1), or the number of the `--set` that a value came from.
struct Position {
  int line = 1;
  int column = 1;
  int override_number = 0;  // 0: from the file
};

// What is wrong with a run file, collected so that one report names everything.
class Problems {
 public:
  void add(Position, std::string text);
  bool empty() const { return found_.empty(); }
  // Throws one input Error that lists the problems in file order, if there are any.
  void throw_if_any(const std::string& file) const;

 private:
  struct Problem {
    Position position;
    std::string text;
  };
  std::vector<Problem> found_;
  std::size_t unlisted_ = 0;
};

// Text of the user's for a message: in single quotes, cut at 60 bytes, control characters replaced.
std::string cited(std::string_view text);

// "a, b, c"
std::string joined(std::span<const std::string_view> names);

// The one of `names` that `text` was probably meant to be; empty if none is near.
std::string_view nearest(std::string_view text, std::span<const std::string_view> names);

}  // namespace rollcall
