// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/engine_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>

#include "tiny_model.h"

namespace rollcall {
namespace {

using Ids = std::vector<std::int32_t>;

class EnginePolicyTest : public testing::Test {
 protected:
  EnginePolicyTest() : model(7), engine(model.spec, {400, 64}), policy(engine) {
    engine.load(3, source_of(model.weights.tensors));
  }

  // Two turns of a session, the second behind a delta.
  asio::awaitable<std::vector<Completion>> talk(std::uint64_t seed) {
    const Ids prompt{1, 2, 3}, delta{4, 5};
    const SamplingOptions sampling{6, {}, 0};
    const auto session = policy.open(prompt, seed);
    std::vector<Completion> turns;
    Completion first = co_await policy.complete(*session, {}, sampling);
    turns.push_back(std::move(first));
    Completion second = co_await policy.complete(*session, delta, sampling);
    turns.push_back(std::move(second));
    co_return turns;
  }

  void drive() {
    loop.restart();
    do loop.poll();
    while (policy.pump());
    loop.restart();
    loop.poll();
  }

  TinyModel model;
  Engine engine;
  EnginePolicy policy;
  asio::io_context loop;
};

TEST_F(EnginePolicyTest, GivesEachCoroutineItsOwnTurns) {
  std::vector<std::vector<Completion>> all(8);
  for (std::size_t i = 0; i < all.size(); ++i)
    asio::co_spawn(loop, talk(i), [&all, i](std::exception_ptr, std::vector<Completion> turns) {
      all[i] = std::move(turns);
    });
  drive();
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(all[i].size(), 2U);
    const Ids prompt{1, 2, 3}, delta{4, 5};
    const SequenceId alone = engine.open(prompt, i);
    for (const auto& turn : all[i]) {
      engine.request_turn(alone, &turn == all[i].data() ? Ids{} : delta, {6, {}, 0});
      std::vector<Engine::Finished> finished;
      while (finished.empty()) finished = engine.step();
      EXPECT_EQ(turn.tokens, finished[0].completion.tokens);
      EXPECT_EQ(turn.versions, Ids(6, 3));
    }
    engine.close(alone);
  }
}

TEST_F(EnginePolicyTest, PumpReportsWhetherThereWasWork) {
  EXPECT_FALSE(policy.pump());
  asio::co_spawn(loop, talk(1), [](std::exception_ptr, const std::vector<Completion>&) {});
  EXPECT_FALSE(policy.pump());  // the coroutine has not begun
  loop.poll();
  EXPECT_TRUE(policy.pump());
}

TEST_F(EnginePolicyTest, CancelledTurnIsAbandonedWithItsSession) {
  asio::cancellation_signal stop;
  std::exception_ptr thrown;
  asio::co_spawn(
      loop, talk(1),
      asio::bind_cancellation_slot(
          stop.slot(), [&](std::exception_ptr e, const std::vector<Completion>&) { thrown = e; }));
  loop.poll();
  EXPECT_TRUE(policy.pump());
  stop.emit(asio::cancellation_type::terminal);
  loop.poll();
  EXPECT_NE(thrown, nullptr);
  EXPECT_FALSE(engine.has_work());
  EXPECT_FALSE(policy.pump());
}

}  // namespace
}  // namespace rollcall
