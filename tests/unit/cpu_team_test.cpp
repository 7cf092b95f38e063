// SPDX-License-Identifier: Apache-2.0
#include "model/cpu_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace rollcall {
namespace {

TEST(CpuTeam, DoesEachItemOnceAndStageAfterStage) {
  CpuTeam team;
  for (const std::int64_t threads : {1, 2, 5}) {
    for (const std::int64_t items : {0, 1, 4, 5, 97}) {
      constexpr std::int64_t kStages = 200;
      std::vector<std::atomic<int>> done(static_cast<std::size_t>(items));
      std::atomic<int> early = 0;
      team.run(threads, [&](CpuTeam::Member& member) {
        for (int stage = 0; stage < kStages; ++stage) {
          member.share(items, [&](std::int64_t i) {
            if (done[static_cast<std::size_t>(i)].fetch_add(1) != stage) ++early;
          });
        }
      });
      for (const auto& times : done) EXPECT_EQ(times, kStages) << threads << ", " << items;
      EXPECT_EQ(early, 0) << threads << ", " << items;
    }
  }
}

// Who takes the first item waits for all others, its own neighbours among them.
TEST(CpuTeam, TakesOverFromASlowMember) {
  CpuTeam team;
  constexpr std::int64_t kItems = 40;
  std::atomic<std::int64_t> members = 0, done = 0;
  std::atomic<bool> waited = false;
  team.run(2, [&](CpuTeam::Member& member) {
    ++members;
    member.share(0, [](std::int64_t) {});
    member.share(kItems, [&](std::int64_t) {
      if (members == 2 && !waited.exchange(true))
        while (done < kItems - 1) std::this_thread::yield();
      ++done;
    });
  });
  EXPECT_EQ(done, kItems);
}

}  // namespace
}  // namespace rollcall
