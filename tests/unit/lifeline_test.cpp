// SPDX-License-Identifier: Apache-2.0
#include "comms/lifeline.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
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

// Connects `count` times to where the address says, and stays.
pid_t flood(const std::string& address, int count) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port =
      htons(static_cast<std::uint16_t>(std::atoi(address.c_str() + address.find(':') + 1)));
  for (int i = 0; i < count; ++i) {
    const int made = ::socket(AF_INET, SOCK_STREAM, 0);
    ::connect(made, reinterpret_cast<const sockaddr*>(&to), sizeof to);
  }
  ::pause();
  ::_exit(0);
}

TEST(Lifeline, IsNotHeldUpByAFloodOfStrangers) {
  LifelineHub hub(true);
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const pid_t strangers = flood(hub.address(), 200);
  rlimit few = before;
  few.rlim_cur = 40;
  ::setrlimit(RLIMIT_NOFILE, &few);
  ::alarm(60);  // what is tested is that poll() returns
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(hub.poll().empty());
    ::usleep(5000);
  }
  ::setenv(kLifelineVariable, hub.address().c_str(), 1);
  const pid_t rank = ::fork();
  if (rank == 0) {
    Lifeline line(3);
    line.say_left(4);
    ::_exit(0);
  }
  const auto end = wait_for_end(hub);
  ::alarm(0);
  ::unsetenv(kLifelineVariable);
  ::setrlimit(RLIMIT_NOFILE, &before);
  ::kill(strangers, SIGKILL);
  ::waitpid(strangers, nullptr, 0);
  ::waitpid(rank, nullptr, 0);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->rank, 3);
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
