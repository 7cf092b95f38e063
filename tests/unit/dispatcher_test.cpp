// SPDX-License-Identifier: Apache-2.0
#include "comms/dispatcher.h"

#include <gtest/gtest.h>

namespace rollcall {
namespace {

Assignment member(std::int64_t group, std::int32_t index) {
  return {.group = group, .member = index};
}

std::vector<int> dispatch_all(Dispatcher& dispatcher) {
  std::vector<int> workers;
  while (const auto next = dispatcher.next()) workers.push_back(next->first);
  return workers;
}

TEST(Dispatcher, GivesNothingToWorkersThatAreNotOpen) {
  Dispatcher dispatcher(2, 3);
  dispatcher.submit(member(0, 0));
  EXPECT_FALSE(dispatcher.next());
  dispatcher.open(5);
  EXPECT_EQ(dispatcher.next()->first, 5);
}

TEST(Dispatcher, KeepsAGroupTogetherAndSpreadsGroups) {
  Dispatcher dispatcher(4, 3);
  dispatcher.open(1);
  dispatcher.open(2);
  for (int group = 0; group < 2; ++group) {
    for (int index = 0; index < 3; ++index) dispatcher.submit(member(group, index));
  }
  EXPECT_EQ(dispatch_all(dispatcher), (std::vector{1, 1, 1, 2, 2, 2}));
}

TEST(Dispatcher, NeverExceedsCreditAndOverflowsToOthers) {
  Dispatcher dispatcher(2, 3);
  dispatcher.open(1);
  dispatcher.open(2);
  for (int index = 0; index < 6; ++index) dispatcher.submit(member(0, index));
  EXPECT_EQ(dispatch_all(dispatcher), (std::vector{1, 1, 2, 2}));
  EXPECT_EQ(dispatcher.queued(), 2);
  EXPECT_TRUE(dispatcher.accept(2, member(0, 2)));
  EXPECT_EQ(dispatch_all(dispatcher), (std::vector{2}));
  EXPECT_EQ(dispatcher.in_flight(), 4);
}

TEST(Dispatcher, PrefersWhoeverHoldsLeastNow) {
  Dispatcher dispatcher(4, 3);
  for (const int worker : {3, 1, 2}) dispatcher.open(worker);
  for (int group = 0; group < 7; ++group) dispatcher.submit(member(group, 0));
  EXPECT_EQ(dispatch_all(dispatcher), (std::vector{1, 2, 3, 1, 2, 3, 1}));
  dispatcher.open(1);  // again: changes nothing
  EXPECT_TRUE(dispatcher.accept(3, member(2, 0)));
  dispatcher.submit(member(7, 0));
  EXPECT_EQ(dispatch_all(dispatcher), (std::vector{3}));
  EXPECT_TRUE(dispatcher.accept(2, member(1, 0)));
  EXPECT_TRUE(dispatcher.accept(2, member(4, 0)));
  dispatcher.close(3);
  EXPECT_EQ(dispatch_all(dispatcher), (std::vector{2, 2}));
  EXPECT_EQ(dispatcher.in_flight(), 5);
}

TEST(Dispatcher, RefusesDuplicatesStrangersAndOldAttempts) {
  Dispatcher dispatcher(2, 3);
  dispatcher.open(1);
  dispatcher.submit(member(0, 0));
  dispatch_all(dispatcher);
  EXPECT_FALSE(dispatcher.accept(2, member(0, 0)));
  EXPECT_FALSE(dispatcher.accept(1, member(0, 1)));
  EXPECT_TRUE(dispatcher.accept(1, member(0, 0)));
  EXPECT_FALSE(dispatcher.accept(1, member(0, 0)));

  dispatcher.submit(member(1, 0));
  dispatch_all(dispatcher);
  dispatcher.close(1);
  dispatcher.open(2);
  const auto again = dispatcher.next();
  EXPECT_EQ(again->second.attempt, 1);
  EXPECT_FALSE(dispatcher.accept(1, member(1, 0)));
  EXPECT_FALSE(dispatcher.accept(2, member(1, 0)));
  EXPECT_TRUE(dispatcher.accept(2, again->second));
}

TEST(Dispatcher, TakesAnAttemptThatTheWorkerRepeatedByItself) {
  Dispatcher dispatcher(2, 3);
  dispatcher.open(1);
  dispatcher.submit(member(0, 0));
  Assignment repeated = dispatcher.next()->second;
  repeated.attempt += 2;
  EXPECT_TRUE(dispatcher.accept(1, repeated));
  EXPECT_FALSE(dispatcher.accept(1, repeated));
  EXPECT_EQ(dispatcher.in_flight(), 0);
}

TEST(Dispatcher, ServesAnEarlierStepFirst) {
  Dispatcher dispatcher(8, 3);
  dispatcher.open(1);
  for (const std::int64_t step : {4, 5, 5, 4, 6, 4})
    dispatcher.submit({.step = step, .group = dispatcher.queued()});
  std::vector<std::int64_t> groups;
  while (const auto next = dispatcher.next()) groups.push_back(next->second.group);
  EXPECT_EQ(groups, (std::vector<std::int64_t>{0, 3, 5, 1, 2, 4}));
}

TEST(Dispatcher, RequeuesLostWorkInFrontInOrder) {
  Dispatcher dispatcher(2, 3);
  dispatcher.open(1);
  for (int index = 0; index < 3; ++index) dispatcher.submit(member(index, 0));
  dispatch_all(dispatcher);
  EXPECT_TRUE(dispatcher.close(1).empty());
  EXPECT_EQ(dispatcher.queued(), 3);
  dispatcher.open(2);
  EXPECT_EQ(dispatcher.next()->second.group, 0);
  EXPECT_EQ(dispatcher.next()->second.group, 1);
}

TEST(Dispatcher, GivesUpAfterTooManyLosses) {
  Dispatcher dispatcher(2, 3);
  dispatcher.submit(member(4, 2));
  for (int worker = 1; worker <= 3; ++worker) {
    dispatcher.open(worker);
    ASSERT_TRUE(dispatcher.next());
    const auto ended = dispatcher.close(worker);
    ASSERT_EQ(ended.size(), worker == 3 ? 1U : 0U);
    if (worker < 3) continue;
    EXPECT_EQ(ended[0].fault, FaultReason::kWorkerLost);
    EXPECT_EQ(ended[0].assignment.group, 4);
    EXPECT_EQ(ended[0].assignment.attempt, 2);
  }
  EXPECT_EQ(dispatcher.queued() + dispatcher.in_flight(), 0);
}

TEST(Dispatcher, CancelledWorkIsNotTriedAgain) {
  Dispatcher dispatcher(1, 3);
  dispatcher.open(1);
  dispatcher.submit(member(0, 0));
  dispatcher.submit(member(0, 1));
  dispatch_all(dispatcher);
  dispatcher.cancel_all();
  EXPECT_EQ(dispatcher.queued(), 0);
  EXPECT_EQ(dispatcher.in_flight(1), 1);
  const auto ended = dispatcher.close(1);
  ASSERT_EQ(ended.size(), 1U);
  EXPECT_EQ(ended[0].fault, FaultReason::kCancelled);
  EXPECT_EQ(dispatcher.queued(), 0);
}

}  // namespace
}  // namespace rollcall
