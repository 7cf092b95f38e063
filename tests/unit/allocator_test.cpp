// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

namespace rollcall {
namespace {

double resident_mb() {
  std::int64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return 1e-6 * static_cast<double>(resident * sysconf(_SC_PAGESIZE));
}

// As the caches of many sequences come and go.
void hold_and_free(std::size_t blocks, std::size_t bytes) {
  std::vector<std::unique_ptr<char[]>> held;
  for (std::size_t i = 0; i < blocks; ++i) {
    held.emplace_back(new char[bytes]);
    std::memset(held.back().get(), 1, bytes);
  }
}

TEST(AllocatorTest, WhatIsFreedTogetherIsUsedAgain) {
  constexpr std::size_t kBlocks = 1000, kBytes = 96 << 10;
  hold_and_free(kBlocks, kBytes);
  const double once = resident_mb();
  for (int i = 0; i < 4; ++i) hold_and_free(kBlocks, kBytes);
  EXPECT_LT(resident_mb() - once, 1e-6 * kBlocks * kBytes / 2);
}

TEST(AllocatorTest, FreedPagesAreKept) {
  const double before = resident_mb();
  hold_and_free(1, 64 << 20);
  EXPECT_GT(resident_mb() - before, 60);
}

}  // namespace
}  // namespace rollcall
