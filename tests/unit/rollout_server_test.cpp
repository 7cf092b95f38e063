// SPDX-License-Identifier: Apache-2.0
// The lead learner's end of more links than a machine could run as processes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <thread>
#include <utility>

#include "comms/error.h"
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

// Answers each turn in the next step, with the worker's rank for a token.
class Echo final : public TurnSampler {
 public:
  void request(int worker, const TurnRequest& turn) override {
    if (turn.options.max_new_tokens == 0) throw Error("a turn of no tokens");
    asked_.push_back({worker, {turn.session, {{worker}, {-1}, {0}}}});
  }
  void close(int worker, std::int64_t session) override { closed.emplace_back(worker, session); }
  void close_all(int worker) override { gone.push_back(worker); }
  bool has_work() const override { return !asked_.empty(); }
  std::vector<Sampled> step() override { return std::exchange(asked_, {}); }

  std::vector<std::pair<int, std::int64_t>> closed;
  std::vector<int> gone;

 private:
  std::vector<Sampled> asked_;
};

TEST_F(RolloutServerTest, SamplesTurnsForWorkersUntilTheyLeave) {
  Echo echo;
  server_.sample_with(&echo);
  greet();
  const int first = kLearners, second = kLearners + 1, third = kLearners + 2;
  const std::string turn = encode(TurnRequest{.session = 7});
  post_.deliver({{first, MessageKind::kTurn, turn}, {second, MessageKind::kTurn, turn}});
  server_.poll_for(std::chrono::milliseconds(5));
  server_.poll();
  const auto replies = take(MessageKind::kSampled);
  ASSERT_EQ(replies.size(), 2U);
  EXPECT_EQ(replies[0].to, first);
  EXPECT_EQ(decode_turn_reply(replies[1].bytes).completion.tokens,
            std::vector<std::int32_t>{second});

  post_.deliver(
      {{first, MessageKind::kClose, encode_number(7)},
       {second, MessageKind::kFarewell, {}},
       {third, MessageKind::kTurn, encode(TurnRequest{.session = 1, .options = {0, {}, 0}})}});
  server_.poll();
  EXPECT_EQ(echo.closed, (std::vector<std::pair<int, std::int64_t>>{{first, 7}}));
  EXPECT_EQ(echo.gone, (std::vector<int>{second, third})) << "the third asked for nonsense";
  const auto workers = server_.workers();
  EXPECT_TRUE(workers[0].alive);
  EXPECT_FALSE(workers[2].alive);

  server_.sample_with(nullptr);
  post_.deliver(
      {{first, MessageKind::kTurn, turn}, {first, MessageKind::kClose, encode_number(7)}});
  server_.poll_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(take(MessageKind::kSampled).empty());
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

// A worker on the same host that computes with the weights in shared memory. The lead learner has
// not yet heard that it attached.
TEST(RolloutServerWeights, AreNotOverwrittenUntilTheWorkerThatUsesThemHasGivenWay) {
  constexpr std::size_t kBytes = 5000;
  const auto filled = [](int value) {
    return [value](std::span<std::byte> out) { std::ranges::fill(out, std::byte(value)); };
  };
  MemoryPost post;
  RolloutServer server(post.mailbox(), 2, "here", {.workers = 1}, kBytes);
  post.deliver({{1, MessageKind::kHello, encode(Hello{system_identity("here"), ::getpid()})}});
  server.poll();
  const Welcome welcome = decode_welcome(post.take().at(0).bytes);
  WeightReader reader(welcome.address, kBytes, welcome.readers, welcome.reader);

  std::span<const std::byte> used;
  std::atomic<int> times = 0;
  const UseWeights use = [&](std::int64_t, std::span<const std::byte> bytes) {
    used = bytes;
    ++times;
    return WeightsUse::kInPlace;
  };
  server.publish(1, filled(1));
  EXPECT_EQ(reader.load(use), 1);
  server.publish(2, filled(2));
  int times_before = 0;
  auto third = std::async(std::launch::async, [&] {
    server.publish(3, [&](std::span<std::byte> out) {
      times_before = times;
      filled(3)(out);
    });
  });
  while (times == 1 && reader.give_way(use)) std::this_thread::yield();
  third.get();
  EXPECT_EQ(times_before, 2);
  EXPECT_TRUE(std::ranges::all_of(used, [](std::byte b) { return b == std::byte(1); }));
  EXPECT_EQ(reader.load(use), 3);
}

}  // namespace
}  // namespace rollcall
