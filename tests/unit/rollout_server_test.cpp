// SPDX-License-Identifier: Apache-2.0
// The lead learner's end of more links than a machine could run as processes.
#include <gtest/gtest.h>

#include <algorithm>

#include "comms/memory_mailbox.h"
#include "comms/rollout_link.h"
#include "comms/wire.h"

namespace rollcall {
namespace {

constexpr int kWorkers = 1000;
constexpr int kLearners = 2;

class RolloutServerTest : public testing::Test {
 protected:
  void greet() {
    std::vector<Message> hellos;
    for (int rank = kLearners; rank < kLearners + kWorkers; ++rank)
      hellos.push_back({rank, MessageKind::kHello, encode(Hello{"elsewhere", rank})});
    post_.deliver(std::move(hellos));
  }
  std::vector<Letter> take(MessageKind kind) {
    std::vector<Letter> letters = post_.take();
    std::erase_if(letters, [&](const Letter& letter) { return letter.kind != kind; });
    return letters;
  }
  void deliver(int from, const Assignment& assignment) {
    Trajectory trajectory;
    trajectory.assignment = assignment;
    post_.deliver({{from, MessageKind::kDelivery, encode(trajectory)}});
  }

  MemoryPost post_;
  RolloutServer server_{post_.mailbox(),
                        kLearners + kWorkers,
                        "here",
                        {.learners = kLearners, .workers = kWorkers, .rollouts_per_worker = 4},
                        0};
};

TEST_F(RolloutServerTest, SpreadsWorkOverAThousandWorkersAndTakesEachAnswerOnce) {
  greet();
  for (int group = 0; group < 3 * kWorkers; ++group) server_.submit({.group = group});
  EXPECT_TRUE(server_.poll().empty());
  const auto assignments = take(MessageKind::kAssignment);
  ASSERT_EQ(assignments.size(), 3U * kWorkers);
  EXPECT_EQ(server_.in_flight(), 3 * kWorkers);
  for (const WorkerStatus& worker : server_.workers()) EXPECT_EQ(worker.in_flight, 3);

  std::vector<int> delivered(3 * kWorkers);
  for (const Letter& letter : assignments) deliver(letter.to, decode_assignment(letter.bytes));
  // A duplicate: must be dropped.
  deliver(assignments[0].to, decode_assignment(assignments[0].bytes));
  while (server_.in_flight() > 0) {
    for (const Trajectory& t : server_.poll()) ++delivered[t.assignment.group];
  }
  EXPECT_TRUE(std::ranges::all_of(delivered, [](int times) { return times == 1; }));
}

TEST_F(RolloutServerTest, HearsOnlyItsWorkers) {
  greet();
  server_.submit({.group = 1});
  server_.poll();
  ASSERT_EQ(take(MessageKind::kAssignment).size(), 1U);
  for (const int stranger : {-1, 0, kLearners - 1, kLearners + kWorkers, 1 << 30})
    deliver(stranger, {.group = 1});
  EXPECT_TRUE(server_.poll().empty());
  deliver(kLearners, {.group = 1});
  EXPECT_EQ(server_.poll().size(), 1U);
}

TEST_F(RolloutServerTest, GivesTheWorkOfOneThatLeftToTheLeastLoaded) {
  greet();
  for (int group = 0; group < kWorkers; ++group) server_.submit({.group = group});
  server_.poll();
  take(MessageKind::kAssignment);
  deliver(kLearners + 7, {.group = 7});
  post_.deliver({{kLearners + 3, MessageKind::kFarewell, {}}});
  EXPECT_EQ(server_.poll().size(), 1U);
  const auto again = take(MessageKind::kAssignment);
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].to, kLearners + 7);
  EXPECT_EQ(decode_assignment(again[0].bytes), (Assignment{.group = 3, .attempt = 1}));
}

}  // namespace
}  // namespace rollcall
