// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace rollcall {

// Hands out training tasks: every epoch a new permutation, derived from seed and epoch alone. Its
// whole state is how many tasks were drawn.
class TaskPool {
 public:
  TaskPool(std::int64_t tasks, std::uint64_t seed);  // tasks > 0

  std::vector<std::int64_t> draw(std::int64_t count);  // task rows
  std::int64_t drawn() const { return drawn_; }
  void restore(std::int64_t drawn) { drawn_ = drawn; }

 private:
  const std::vector<std::int64_t>& permutation(std::int64_t epoch);

  std::int64_t tasks_, drawn_ = 0, epoch_ = -1;
  std::uint64_t seed_;
  std::vector<std::int64_t> permutation_;  // of epoch_
};

}  // namespace rollcall
