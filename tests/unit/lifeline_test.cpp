// SPDX-License-Identifier: Apache-2.0
#include "comms/lifeline.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <optional>

namespace rollcall {
namespace {

using End = LifelineHub::End;

std::optional<LifelineHub::RankEnd> wait_for_end(LifelineHub& hub, int milliseconds = 5000) {
  for (int waited = 0; waited <= milliseconds; waited += 50) {
    const auto ends = hub.poll();
    EXPECT_LE(ends.size(), 1U);
    if (!ends.empty()) return ends.front();
    pollfd request{hub.descriptor(), POLLIN, 0};
    ::poll(&request, 1, 50);
  }
  return std::nullopt;
}

// What the hub hears of a process that is rank 3 and does that.
std::optional<LifelineHub::RankEnd> end_of(const std::function<void(Lifeline&)>& act) {
  LifelineHub hub(true);
  ::setenv(kLifelineVariable, hub.address().c_str(), 1);
  const pid_t child = ::fork();
  if (child == 0) {
    Lifeline line(3);
    act(line);
    ::_exit(0);
  }
  ::unsetenv(kLifelineVariable);
  const auto end = wait_for_end(hub);
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(hub.poll().empty()) << "a rank has one end";
  return end;
}

TEST(Lifeline, TellsHowARankLeft) {
  const auto end = end_of([](Lifeline& line) {
    line.say_ready();
    line.say_left(4);
  });
  ASSERT_TRUE(end);
  EXPECT_EQ(end->rank, 3);
  EXPECT_EQ(end->end, End::kLeft);
  EXPECT_EQ(end->code, 4);
  EXPECT_TRUE(end->was_ready);
}

TEST(Lifeline, BringsTheMessageOfAFailureInOneLine) {
  const auto end = end_of([](Lifeline& line) { line.say_failed(2, "no such\nfile: a b"); });
  ASSERT_TRUE(end);
  EXPECT_EQ(end->end, End::kFailed);
  EXPECT_EQ(end->code, 2);
  EXPECT_EQ(end->message, "no such file: a b");
  EXPECT_FALSE(end->was_ready);
}

TEST(Lifeline, TellsOfADeathThatSaidNothing) {
  const auto end = end_of([](Lifeline& line) {
    line.say_ready();
    ::raise(SIGKILL);
  });
  ASSERT_TRUE(end);
  EXPECT_EQ(end->end, End::kDied);
  EXPECT_EQ(end->rank, 3);
}

TEST(Lifeline, AdmitsOnlyWhoKnowsTheToken) {
  LifelineHub hub(true);
  const std::string forged = "0" + hub.address();
  ::setenv(kLifelineVariable, forged.c_str(), 1);
  { Lifeline stranger(0); }
  ::unsetenv(kLifelineVariable);
  EXPECT_FALSE(wait_for_end(hub, 200));
}

TEST(Lifeline, IsNothingWithoutAParent) {
  ::unsetenv(kLifelineVariable);
  Lifeline line(0);
  EXPECT_FALSE(line.connected());
  line.say_left(0);
  ::setenv(kLifelineVariable, "token:1:127.0.0.1", 1);  // nobody listens there
  EXPECT_FALSE(Lifeline(0).connected());
  ::unsetenv(kLifelineVariable);
}

}  // namespace
}  // namespace rollcall
