// SPDX-License-Identifier: Apache-2.0
// A tool server or grader that is down costs time, never a rollout.
#include "rollout_workers/endpoint.h"

#include <gtest/gtest.h>

#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <atomic>

#include "rollout_fixture.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;

class EndpointTest : public RolloutTest {
 protected:
  EndpointTest() {
    policy.script = {call_text("get", "{\"q\": 1}"), "Done."};
    options.max_attempts = 1;
    tools[0].max_retries = grading.max_retries = 0;
  }

  // Each is a rollout of its own.
  std::vector<Trajectory> run_each(int count) {
    Environment environment(client, tools, grading, "job-1", {milliseconds(10), milliseconds(40)});
    const RolloutContext context{policy, environment, *format, tokenizer, options};
    std::vector<Trajectory> done;
    for (int i = 0; i < count; ++i) {
      Assignment one = assignment;
      one.member = i;
      asio::co_spawn(loop, run_rollout(one, task, context),
                     [&done](std::exception_ptr thrown, Trajectory t) {
                       if (thrown) std::rethrow_exception(thrown);
                       done.push_back(std::move(t));
                     });
    }
    loop.restart();
    loop.run();
    endpoints = environment.endpoints();
    EXPECT_FALSE(environment.congested());
    return done;
  }

  void expect_none_lost(const std::vector<Trajectory>& all, std::size_t count) {
    EXPECT_EQ(all.size(), count);
    for (const Trajectory& t : all) {
      EXPECT_EQ(t.fault, FaultReason::kNone) << t.fault_detail;
      EXPECT_EQ(t.assignment.attempt, 0);
    }
  }

  std::vector<EndpointStatus> endpoints;
};

TEST_F(EndpointTest, AnOutageCostsNothingButTime) {
  std::atomic<int> left = 40;
  grader = [&left](const LoopbackRequest&) {
    return --left > 0 ? answer(429, "{}") : answer(200, R"({"score":1})");
  };
  grading.max_concurrency = 4;
  expect_none_lost(run_each(12), 12);
  ASSERT_EQ(endpoints.size(), 1U);
  EXPECT_EQ(endpoints[0].name, "grader");
  EXPECT_GE(endpoints[0].openings, 1);
  EXPECT_GE(endpoints[0].retries, 39);
  EXPECT_GT(endpoints[0].waited_s, 0);
  EXPECT_FALSE(endpoints[0].waiting);
  EXPECT_EQ(endpoints[0].held, 0);
}

TEST_F(EndpointTest, GarbageForAWhileCostsItsProbesAtMost) {
  std::atomic<int> left = 14;
  grading.max_retries = 2;  // as many as there are probes that fail
  grader = [&left](const LoopbackRequest&) {
    return --left > 0 ? answer(200, "<html>") : answer(200, R"({"score":1})");
  };
  const auto all = run_each(12);
  expect_none_lost(all, 12);
}

TEST_F(EndpointTest, OneRolloutThatAlwaysFailsStopsNobody) {
  grader = [](const LoopbackRequest& r) {
    return r.header("x-rft-rollout-id").ends_with("_3") ? answer(500)
                                                        : answer(200, R"({"score":1})");
  };
  grading.max_retries = 8;
  int lost = 0;
  for (const Trajectory& t : run_each(8)) lost += t.fault == FaultReason::kGraderFault ? 1 : 0;
  EXPECT_EQ(lost, 1);
  EXPECT_EQ(endpoints.at(0).openings, 0);
}

// A server that does four at once, each for 20 ms, and refuses the rest.
TEST_F(EndpointTest, ALoadThatTheServerRefusesIsSpreadOut) {
  using Clock = std::chrono::steady_clock;
  std::vector<Clock::time_point> busy_until;
  std::atomic<int> refused = 0;
  grader = [&](const LoopbackRequest&) {
    const auto now = Clock::now();
    std::erase_if(busy_until, [now](auto end) { return end <= now; });
    if (busy_until.size() >= 4) {
      ++refused;
      return answer(429);
    }
    busy_until.push_back(now + milliseconds(20));
    LoopbackReply reply = answer(200, R"({"score":1})");
    reply.delay = milliseconds(20);
    return reply;
  };
  expect_none_lost(run_each(40), 40);
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, 200);  // every 25 ms all that wait would make 40 + 36 + ... = 220 and more
}

TEST(EndpointLimit, HalvesOnARefusalAndGrowsByOneOnAnAnswer) {
  asio::io_context loop;
  Endpoint endpoint({.name = "e", .address = "a", .max_concurrency = 8});
  std::vector<Endpoint::Turn> turns;
  std::optional<CircuitBreaker::Time> came;
  const auto take = [&](int wanted) {
    turns.clear();
    for (int i = 0; i < wanted; ++i)
      asio::co_spawn(
          loop, [&]() -> asio::awaitable<void> { turns.push_back(co_await endpoint.turn(came)); },
          [](std::exception_ptr) {});
    loop.restart();
    loop.poll();
    return turns.size();
  };
  const auto end_all = [&](TryOutcome outcome) {
    for (auto& turn : turns) turn.end(outcome);
  };
  EXPECT_EQ(take(8), 8U);
  EXPECT_FALSE(endpoint.congested());
  for (int i = 0; i < 4; ++i) turns[i].end(TryOutcome::kBusy);  // one cut: all were sent together
  for (int i = 4; i < 8; ++i) turns[i].end(TryOutcome::kAnswered);
  EXPECT_EQ(take(8), 8U);  // 4, and 1 more for each answer
  turns[0].end(TryOutcome::kBusy);
  EXPECT_EQ(take(6), 4U);
  EXPECT_TRUE(endpoint.congested());  // two queue
  end_all(TryOutcome::kAnswered);
}

TEST(EndpointTurn, IsCancellableWhileTheEndpointIsStopped) {
  asio::io_context loop;
  Endpoint endpoint(
      {.name = "e", .address = "a", .probes = {milliseconds(60000), milliseconds(60000)}});
  int ended = 0;
  asio::cancellation_signal stop;
  const auto use = [&]() -> asio::awaitable<void> {
    std::optional<CircuitBreaker::Time> came;
    for (int i = 0; i < 6; ++i) {
      Endpoint::Turn turn = co_await endpoint.turn(came);
      turn.end(TryOutcome::kUnreachable, "r", {}, "refused");
    }
  };
  asio::co_spawn(loop, use,
                 asio::bind_cancellation_slot(stop.slot(), [&](std::exception_ptr thrown) {
                   ++ended;
                   EXPECT_TRUE(thrown);
                 }));
  loop.poll();
  EXPECT_EQ(endpoint.status().held, 1);
  EXPECT_TRUE(endpoint.status().waiting);
  EXPECT_EQ(endpoint.status().error, "refused");
  EXPECT_TRUE(endpoint.congested());
  stop.emit(asio::cancellation_type::terminal);
  loop.restart();
  loop.poll();
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(endpoint.status().held, 0);
}

}  // namespace
}  // namespace rollcall
