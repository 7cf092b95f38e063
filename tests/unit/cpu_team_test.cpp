// SPDX-License-Identifier: Apache-2.0
#include "model/cpu_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace rollcall {
namespace {

constexpr std::int64_t kManyFlops = std::int64_t{1} << 40;

class CpuTeamTest : public testing::Test {
 protected:
  // Stage after stage; adds up what was not done in its turn.
  void run(std::int64_t items) {
    std::vector<std::atomic<int>> done(static_cast<std::size_t>(items));
    std::atomic<int> out_of_turn = 0;
    constexpr int kStages = 200;
    team_.run(kManyFlops, [&](CpuTeam::Member& member) {
      for (int stage = 0; stage < kStages; ++stage) {
        member.share(items, [&](std::int64_t i) {
          if (done[static_cast<std::size_t>(i)].fetch_add(1) != stage) ++out_of_turn;
        });
      }
    });
    for (const auto& times : done) EXPECT_EQ(times, kStages) << items;
    EXPECT_EQ(out_of_turn, 0) << items;
  }

  void SetUp() override { cpu_kernels(); }  // which throws outside of a region, if it does
  void TearDown() override { at::set_num_threads(threads_); }

  CpuTeam team_;
  const int threads_ = at::get_num_threads();
};

TEST_F(CpuTeamTest, DoesEachItemOnceAndStageAfterStage) {
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    for (const std::int64_t items : {0, 1, 4, 5, 97}) run(items);
  }
}

TEST_F(CpuTeamTest, GetsAlongWithFewerThreadsThanItAskedFor) {
  at::set_num_threads(5);
#pragma omp parallel num_threads(2)
  {
#pragma omp single
    run(97);
  }
}

// Who takes the first item waits for all others, its own neighbours among them.
TEST_F(CpuTeamTest, PassesOnWhatAPartOfALoopThrows) {
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    for (const std::int64_t flops : {std::int64_t{1}, kGrainFlops}) {
      const auto body = [](std::int64_t begin, std::int64_t end) {
        if (begin <= 70 && 70 < end) throw std::runtime_error("70");
      };
      EXPECT_THROW(parallel(100, flops, body), std::runtime_error) << threads;
      EXPECT_NO_THROW(parallel(70, flops, body)) << threads;
    }
  }
}

TEST_F(CpuTeamTest, TakesOverFromASlowMember) {
  at::set_num_threads(2);
  constexpr std::int64_t kItems = 40;
  std::atomic<std::int64_t> members = 0, done = 0;
  std::atomic<bool> waited = false;
  team_.run(kManyFlops, [&](CpuTeam::Member& member) {
    ++members;
    member.share(0, [](std::int64_t) {});
    member.share(kItems, [&](std::int64_t) {
      if (members == 2 && !waited.exchange(true))
        while (done < kItems - 1) std::this_thread::yield();
      ++done;
    });
  });
  if (members < 2) GTEST_SKIP() << "there is one thread: OMP_THREAD_LIMIT, or no OpenMP";
  EXPECT_TRUE(waited);
  EXPECT_EQ(done, kItems);
}

}  // namespace
}  // namespace rollcall
