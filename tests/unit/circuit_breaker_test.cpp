// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/circuit_breaker.h"

#include <gtest/gtest.h>

namespace rollcall {
namespace {

using std::chrono::milliseconds;
using State = CircuitBreaker::State;

// Three failures open it; probes after 100 ms, then 200, 400, at most 500.
class CircuitBreakerTest : public testing::Test {
 protected:
  CircuitBreaker::Time at(int ms) const { return CircuitBreaker::Time() + milliseconds(ms); }
  CircuitBreaker::Pass admitted(int ms) {
    const auto pass = breaker.admit(at(ms));
    EXPECT_TRUE(pass.has_value()) << "at " << ms;
    return pass.value_or(CircuitBreaker::Pass{-1});
  }
  void fail(int ms, const CircuitBreaker::Failure& failure = {}) {
    breaker.failed(admitted(ms), failure, at(ms));
  }
  void open_at(int ms) {
    for (int i = 0; i < 3; ++i) fail(ms);
    ASSERT_EQ(breaker.state(), State::kOpen);
  }

  CircuitBreaker breaker{
      {.failures = 3, .first_wait = milliseconds(100), .longest_wait = milliseconds(500)}};
};

TEST_F(CircuitBreakerTest, OpensAfterFailuresInARow) {
  fail(0);
  fail(1);
  breaker.succeeded(admitted(2));
  fail(3);
  fail(4);
  EXPECT_EQ(breaker.state(), State::kClosed);
  fail(5);
  EXPECT_EQ(breaker.state(), State::kOpen);
  EXPECT_EQ(breaker.opened_at(), at(5));
  EXPECT_EQ(breaker.openings(), 1);
}

TEST_F(CircuitBreakerTest, OneProbeDecides) {
  open_at(0);
  EXPECT_EQ(breaker.next_admission(), at(100));
  EXPECT_FALSE(breaker.admit(at(99)));
  const auto probe = admitted(100);
  EXPECT_TRUE(probe.probe);
  EXPECT_FALSE(breaker.admit(at(1000)));
  EXPECT_EQ(breaker.next_admission(), CircuitBreaker::Time::max());
  breaker.succeeded(probe);
  EXPECT_EQ(breaker.state(), State::kClosed);
  EXPECT_FALSE(admitted(1001).probe);
}

TEST_F(CircuitBreakerTest, WaitsLongerAfterEachFailedProbe) {
  open_at(0);
  int now = 100;
  for (const int wait : {200, 400, 500, 500}) {
    fail(now);
    EXPECT_FALSE(breaker.admit(at(now + wait - 1)));
    now += wait;
  }
  EXPECT_EQ(breaker.openings(), 1);
  EXPECT_EQ(breaker.opened_at(), at(0));
  breaker.succeeded(admitted(now));
  open_at(now);
  EXPECT_EQ(breaker.next_admission(), at(now + 100));  // from the first wait again
  EXPECT_EQ(breaker.openings(), 2);
}

TEST_F(CircuitBreakerTest, ChanceTakesUpToHalfOfAWait) {
  for (int i = 0; i < 3; ++i) fail(0, {.chance = 0});
  EXPECT_EQ(breaker.next_admission(), at(50));
}

TEST_F(CircuitBreakerTest, WaitsAtLeastAsLongAsItWasAsked) {
  for (int i = 0; i < 3; ++i) fail(0, {.asked = milliseconds(7000)});
  EXPECT_EQ(breaker.next_admission(), at(7000));
}

TEST_F(CircuitBreakerTest, RolloutsThatFailAloneDoNotOpenIt) {
  for (int i = 0; i < 100; ++i) fail(i, {.suspect = "a"});
  EXPECT_EQ(breaker.state(), State::kClosed);
  fail(100, {.suspect = "b"});
  fail(101, {.suspect = "c"});
  EXPECT_EQ(breaker.state(), State::kOpen);
}

TEST_F(CircuitBreakerTest, WhoFailsWhileAnotherSucceedsIsNoWitness) {
  for (const char* who : {"a", "b"}) fail(0, {.suspect = who});
  breaker.succeeded(admitted(1), "b");  // its own retry
  breaker.succeeded(admitted(1), "z");
  for (int i = 0; i < 10; ++i)
    for (const char* who : {"a", "c", "d"}) fail(2, {.suspect = who});
  EXPECT_EQ(breaker.state(), State::kClosed);  // a is known to fail alone: two suspects are left
  fail(3, {.suspect = "b"});
  EXPECT_EQ(breaker.state(), State::kOpen);
}

TEST_F(CircuitBreakerTest, NewsOfAnEarlierPeriodIsNone) {
  const auto early = admitted(0), late = admitted(0);
  open_at(1);
  breaker.succeeded(early);
  EXPECT_EQ(breaker.state(), State::kOpen);
  const auto probe = admitted(101);
  breaker.failed(late, {}, at(102));
  EXPECT_EQ(breaker.state(), State::kHalfOpen);
  breaker.succeeded(probe);
  for (int i = 0; i < 5; ++i) breaker.failed(late, {}, at(103));
  EXPECT_EQ(breaker.state(), State::kClosed);
}

// All were sent at once; failures come back sooner than answers.
TEST_F(CircuitBreakerTest, ALateSuccessTurnsSuspectsIntoCulprits) {
  const auto pass = admitted(0);
  for (const char* who : {"a", "b", "c"}) breaker.failed(pass, {.suspect = who}, at(1));
  EXPECT_EQ(breaker.state(), State::kOpen);
  breaker.succeeded(pass, "d");
  EXPECT_EQ(breaker.state(), State::kClosed);
  for (int i = 0; i < 10; ++i) fail(2, {.suspect = "a"});
  EXPECT_EQ(breaker.state(), State::kClosed);
}

TEST_F(CircuitBreakerTest, AnAbandonedProbeMakesRoomForAnother) {
  open_at(0);
  breaker.abandoned(admitted(100));
  EXPECT_TRUE(admitted(100).probe);
}

}  // namespace
}  // namespace rollcall
