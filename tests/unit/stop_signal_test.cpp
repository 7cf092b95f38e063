// SPDX-License-Identifier: Apache-2.0
#include "comms/stop_signal.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

namespace rollcall {
namespace {

void pause_ms(int milliseconds) {
  timespec left{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
  while (::nanosleep(&left, &left) != 0) {
  }
}

TEST(StopSignal, TurnsEachSignalIntoARequest) {
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) {
    const StopSignal stop;
    EXPECT_FALSE(stop.stop_requested());
    ::raise(number);
    EXPECT_TRUE(stop.stop_requested());
    EXPECT_EQ(stop.signal_number(), number);
  }
}

TEST(StopSignal, TakesAPairOfSignalsForOne) {
  const StopSignal stop;
  ::raise(SIGUSR1);
  ::raise(SIGTERM);
  EXPECT_EQ(stop.signal_number(), SIGUSR1);
}

TEST(StopSignal, IsAskedAgainWithoutHarm) {
  const StopSignal stop;
  ::raise(SIGUSR1);
  ::usleep(1'050'000);
  ::raise(SIGUSR1);
  EXPECT_TRUE(stop.stop_requested());
}

TEST(StopSignal, RestoresFormerHandlers) {
  static volatile sig_atomic_t reached = 0;
  ::signal(SIGUSR1, [](int) { reached = 1; });
  { const StopSignal stop; }
  ::raise(SIGUSR1);
  EXPECT_EQ(reached, 1);
  ::signal(SIGUSR1, SIG_DFL);
}

TEST(StopSignalDeathTest, EndsAtOnceOnALaterSignal) {
  EXPECT_EXIT(
      {
        const StopSignal stop;
        ::raise(SIGTERM);
        pause_ms(1050);
        ::raise(SIGTERM);
      },
      testing::ExitedWithCode(3), "");
}

}  // namespace
}  // namespace rollcall
