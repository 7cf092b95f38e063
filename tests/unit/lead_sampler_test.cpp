// SPDX-License-Identifier: Apache-2.0
#include "trainer/lead_sampler.h"

#include <gtest/gtest.h>

#include "comms/error.h"
#include "comms/memory_mailbox.h"
#include "tiny_model.h"

namespace rollcall {
namespace {

using Ids = std::vector<std::int32_t>;

const EngineOptions kRoom{400, 64, at::kFloat};
const SamplingOptions kEight{8, {}, 0};

class LeadSamplerTest : public testing::Test {
 protected:
  LeadSamplerTest() { sampler_.load(3, source_of(model_.weights.tensors)); }

  static TurnRequest opening(std::int64_t session, Ids prompt, std::uint64_t seed) {
    return {session, seed, std::move(prompt), {}, kEight};
  }
  static TurnRequest further(std::int64_t session, Ids delta) {
    return {session, 0, {}, std::move(delta), kEight};
  }
  std::map<std::pair<int, std::int64_t>, Completion> run() {
    std::map<std::pair<int, std::int64_t>, Completion> turns;
    while (sampler_.has_work())
      for (auto& [worker, reply] : sampler_.step())
        turns[{worker, reply.session}] = std::move(reply.completion);
    return turns;
  }

  TinyModel model_{7};
  MemoryPost post_;
  RolloutServer server_{post_.mailbox(), 4, "here", {.learners = 1, .workers = 3}, 0};
  LeadSampler sampler_{model_.spec, kRoom, server_};
};

TEST_F(LeadSamplerTest, SamplesWhatTheWorkersOwnEngineWould) {
  const Ids prompt{1, 2, 3}, result{4, 5};
  sampler_.request(1, opening(0, prompt, 42));
  sampler_.request(2, opening(0, prompt, 43));  // the same number of another worker
  auto first = run();
  sampler_.request(1, further(0, result));
  auto second = run();

  Engine own(model_.spec, kRoom);
  own.load(3, source_of(model_.weights.tensors));
  const SequenceId id = own.open(prompt, 42);
  for (const auto& [delta, turns] : {std::pair(Ids(), first), std::pair(result, second)}) {
    own.request_turn(id, delta, kEight);
    std::vector<Engine::Finished> finished;
    while (own.has_work())
      for (auto& f : own.step()) finished.push_back(std::move(f));
    ASSERT_EQ(finished.size(), 1U);
    const Completion& theirs = turns.at({1, 0});
    EXPECT_EQ(theirs.tokens, finished[0].completion.tokens);
    EXPECT_EQ(theirs.logprobs, finished[0].completion.logprobs);
    EXPECT_EQ(theirs.versions, finished[0].completion.versions);
    EXPECT_EQ(theirs.stop, finished[0].completion.stop);
  }
  EXPECT_NE(first.at({2, 0}).tokens, first.at({1, 0}).tokens) << "another seed";
}

TEST_F(LeadSamplerTest, ForgetsWhatWasClosed) {
  for (const int worker : {1, 2, 3})
    for (const std::int64_t session : {0, 1}) sampler_.request(worker, opening(session, {1, 2}, 5));
  sampler_.close(1, 0);
  sampler_.close(1, 0);
  sampler_.close_all(2);
  const auto turns = run();
  ASSERT_EQ(turns.size(), 3U);
  EXPECT_TRUE(turns.contains({1, 1}));
  EXPECT_TRUE(turns.contains({3, 0}) && turns.contains({3, 1}));
}

TEST_F(LeadSamplerTest, RefusesWhatNoWorkerShouldAskFor) {
  EXPECT_THROW(sampler_.request(1, further(0, {4})), Error) << "not open";
  sampler_.request(1, opening(0, {1, 2}, 5));
  EXPECT_THROW(sampler_.request(1, opening(0, {1, 2}, 5)), Error) << "open already";
  EXPECT_THROW(sampler_.request(1, opening(1, {1, 1 << 30}, 5)), Error) << "no such token";
  EXPECT_EQ(run().size(), 1U);
}

}  // namespace
}  // namespace rollcall
