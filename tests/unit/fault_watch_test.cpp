// SPDX-License-Identifier: Apache-2.0
// What the lead learner makes of faults: of the endpoints' and of the rollouts they cost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "comms/error.h"
#include "trainer/discard_watch.h"
#include "trainer/endpoint_watch.h"

namespace rollcall {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

EndpointStatus grader(bool waiting, double down_s, int held) {
  return {.name = "grader",
          .address = "http://g:80/grade",
          .waiting = waiting,
          .held = held,
          .down_s = down_s,
          .error = "refused"};
}

WorkerStatus worker(int rank, const EndpointStatus& status) {
  return {.rank = rank, .endpoints = {status}};
}

TEST(EndpointWatch, SaysWhatTheRunWaitsFor) {
  EndpointWatch watch;
  EXPECT_EQ(watch.waiting(), "");
  std::vector<WorkerStatus> workers{worker(1, grader(true, 41.6, 20)),
                                    worker(2, grader(true, 30, 28)), worker(3, grader(false, 0, 0)),
                                    worker(4, grader(true, 99, 7))};
  workers[3].alive = false;
  EXPECT_THAT(watch.look(workers),
              ElementsAre("grader at http://g:80/grade does not answer (refused): waiting for it"));
  EXPECT_EQ(
      watch.waiting(),
      "waiting for grader at http://g:80/grade (refused) since 42 s; 2 workers, 48 calls held");
  EXPECT_THAT(watch.look(workers), IsEmpty());
  for (auto& w : workers) w.endpoints = {grader(false, 0, 0)};
  EXPECT_THAT(watch.look(workers), ElementsAre("grader answers again after 42 s"));
  EXPECT_EQ(watch.waiting(), "");
}

TEST(EndpointWatch, CountsWhatCameSinceTheLastStep) {
  EndpointWatch watch;
  EndpointStatus tool;
  tool.name = "tool get";
  tool.waited_s = 2.5;
  tool.openings = 1;
  tool.retries = 7;
  watch.look(std::vector{worker(1, tool), worker(2, tool)});
  EXPECT_THAT(watch.take_metrics(), ElementsAre(Pair("endpoint_seconds_waited.tool.get", 5.0),
                                                Pair("endpoint_openings.tool.get", 2.0),
                                                Pair("endpoint_retries.tool.get", 14.0)));
  EXPECT_THAT(watch.take_metrics(), IsEmpty());
  EndpointStatus later = tool;
  later.retries = 8;
  watch.look(std::vector{worker(1, tool), worker(2, later)});
  EXPECT_THAT(watch.take_metrics(), ElementsAre(Pair("endpoint_retries.tool.get", 1.0)));
}

// Groups of two rollouts each; a fault takes the second of a group.
std::vector<Collected> step_of(int groups, const std::function<double(int)>& reward,
                               const std::function<bool(int)>& loses) {
  std::vector<Collected> step;
  for (int g = 0; g < groups; ++g) {
    for (int member = 0; member < 2; ++member) {
      Trajectory t;
      t.assignment.group = g;
      t.grade.reward = reward(g);
      t.end = EndReason::kFinished;
      if (member == 1 && loses(g)) t.fault = FaultReason::kToolFault;
      step.push_back({0, std::make_shared<const Trajectory>(std::move(t))});
    }
  }
  return step;
}

TEST(DiscardShare, StopsTheStepAboveItsLimit) {
  const auto half = step_of(
      4, [](int) { return 1.0; }, [](int g) { return g < 2; });  // 2 of 8
  EXPECT_NO_THROW(refuse_if_many_lost(half, 0.25, 3));
  EXPECT_NO_THROW(refuse_if_many_lost(half, 0, 3));
  EXPECT_NO_THROW(refuse_if_many_lost({}, 0.25, 3));
  try {
    refuse_if_many_lost(half, 0.2, 3);
    FAIL() << "it ends";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kAlarm);
    EXPECT_THAT(error.what(), HasSubstr("step 3: faults left out 2 of 8 rollouts"));
  }
}

// 10 groups that lost one earn 0.2 and 0.4 in turns, 10 others 0.6 and 0.8. Means 0.3 and 0.7,
// variances 0.1 / 9 each: z = -0.4 / sqrt(2 * 0.1 / 90).
TEST(DiscardWatch, ComparesGroupsThatLostRolloutsWithTheOthers) {
  DiscardWatch watch;
  const auto reward = [](int g) { return (g % 2 == 0 ? 0.2 : 0.4) + (g < 10 ? 0.0 : 0.4); };
  watch.add(step_of(20, reward, [](int g) { return g < 10; }));
  const auto found = watch.finding();
  ASSERT_TRUE(found);
  EXPECT_NEAR(found->gap, -0.4, 1e-12);
  EXPECT_NEAR(found->z, -0.4 / std::sqrt(2 * 0.1 / 90), 1e-9);
  EXPECT_EQ(found->groups_with_losses, 10);
  EXPECT_EQ(found->groups_without, 10);
}

TEST(DiscardWatch, SaysNothingOfFewGroups) {
  DiscardWatch watch;
  watch.add(step_of(
      19, [](int g) { return g; }, [](int g) { return g < 9; }));
  EXPECT_FALSE(watch.finding());
  EXPECT_THAT(watch.metrics(), IsEmpty());
}

// A policy that improves while a server was bad early on is no correlation.
TEST(DiscardWatch, DoesNotMistakeProgressForChoice) {
  DiscardWatch watch;
  watch.add(step_of(
      20, [](int g) { return 0.01 * (g % 2); }, [](int g) { return g < 16; }));
  watch.add(step_of(
      20, [](int g) { return 1 + 0.01 * (g % 2); }, [](int) { return false; }));
  ASSERT_TRUE(watch.finding());
  EXPECT_NEAR(watch.finding()->gap, 0, 1e-12);
}

}  // namespace
}  // namespace rollcall
