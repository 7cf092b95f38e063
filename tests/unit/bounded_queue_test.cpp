// SPDX-License-Identifier: Apache-2.0
#include "comms/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace rollcall {
namespace {

TEST(BoundedQueue, KeepsOrderAndCapacity) {
  BoundedQueue<std::unique_ptr<int>> queue(2);
  EXPECT_TRUE(queue.push(std::make_unique<int>(1)));
  EXPECT_TRUE(queue.push(std::make_unique<int>(2)));
  auto third = std::make_unique<int>(3);
  EXPECT_FALSE(queue.try_push(third));
  ASSERT_NE(third, nullptr);
  EXPECT_EQ(**queue.pop(), 1);
  EXPECT_TRUE(queue.try_push(third));
  EXPECT_EQ(**queue.pop(), 2);
  EXPECT_EQ(**queue.try_pop(), 3);
  EXPECT_FALSE(queue.try_pop());
}

TEST(BoundedQueue, DrainsAfterClose) {
  BoundedQueue<int> queue(4);
  queue.push(1);
  queue.push(2);
  queue.close(Close::kDrain);
  EXPECT_FALSE(queue.push(3));
  EXPECT_EQ(queue.pop(), 1);
  EXPECT_EQ(queue.pop(), 2);
  EXPECT_EQ(queue.pop(), std::nullopt);
}

TEST(BoundedQueue, DropsAfterClose) {
  BoundedQueue<int> queue(4);
  queue.push(1);
  queue.close(Close::kDrop);
  EXPECT_EQ(queue.pop(), std::nullopt);
  EXPECT_EQ(queue.size(), 0U);
}

TEST(BoundedQueue, CloseEndsWaitsOnBothSides) {
  BoundedQueue<int> full(1);
  full.push(1);
  BoundedQueue<int> empty(1);
  bool pushed = true;
  std::optional<int> popped = 7;
  std::thread producer([&] { pushed = full.push(2); });
  std::thread consumer([&] { popped = empty.pop(); });
  full.close(Close::kDrain);
  empty.close(Close::kDrain);
  producer.join();
  consumer.join();
  EXPECT_FALSE(pushed);
  EXPECT_FALSE(popped);
}

TEST(BoundedQueue, PassesEverythingOnceBetweenThreads) {
  constexpr int kItems = 2000;
  constexpr int kProducers = 3;
  BoundedQueue<int> queue(5);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&queue, p] {
      for (int i = 0; i < kItems; ++i) queue.push(p * kItems + i);
    });
  }
  std::vector<int> seen(kProducers * kItems);
  for (int i = 0; i < kProducers * kItems; ++i) ++seen[*queue.pop()];
  for (std::thread& producer : producers) producer.join();
  EXPECT_EQ(seen, std::vector<int>(kProducers * kItems, 1));
}

}  // namespace
}  // namespace rollcall
