// SPDX-License-Identifier: Apache-2.0
// A second grading, while the rollout lives and long after.
#include "rollout_workers/stored_grading.h"

#include <gmock/gmock.h>

#include <atomic>

#include "comms/error.h"
#include "rollout_fixture.h"

namespace rollcall {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

class ConfirmTest : public RolloutTest {
 protected:
  ConfirmTest() {
    assignment.rare = true;
    scores({1, 1});
  }

  // What the grader says first, second, and so on; below 0: it fails.
  void scores(std::vector<double> all) {
    asked_ = 0;
    grader = [this, all](const LoopbackRequest&) {
      const double score = all.at(std::min<std::size_t>(asked_++, all.size() - 1));
      return score < 0 ? answer(500) : answer(200, json{{"score", score}}.dump());
    };
  }

  std::atomic<std::size_t> asked_{0};
};

TEST_F(ConfirmTest, APassThatPassesAgainIsNotedAndCounts) {
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kNone);
  EXPECT_EQ(t.grade.reward, 1);
  EXPECT_THAT(t.grade.sub_rewards, ElementsAre(Pair(kConfirmScore, 1)));
  EXPECT_EQ(confirmation_of(t.grade), Confirmation::kConfirmed);
  const auto requests = requests_to("/grade");
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].body, requests[1].body);
  EXPECT_EQ(requests[1].header("idempotency-key"), t.trace_id + ":confirm")
      << "or the server would repeat its first word";
}

TEST_F(ConfirmTest, APassThatFailsTheSecondTimeIsLeftOut) {
  scores({1, 0});
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kMasked);
  EXPECT_THAT(t.fault_detail, HasSubstr("did not confirm"));
  EXPECT_THAT(t.grade.flags, ElementsAre(kUnconfirmedFlag));
  EXPECT_EQ(t.grade.score, 1) << "the grader's word stays";
}

TEST_F(ConfirmTest, TheFlagDoesWhatTheRunFileSays) {
  scores({1, 0});
  grading.flags = {{kUnconfirmedFlag, "zero", 0}};
  Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kNone);
  EXPECT_EQ(t.grade.reward, 0);
  EXPECT_FALSE(t.grade.passed);
  scores({1, 0});
  grading.flags = {{kUnconfirmedFlag, "log", 0}};
  t = run();
  EXPECT_EQ(t.grade.reward, 1);
  EXPECT_EQ(confirmation_of(t.grade), Confirmation::kUnconfirmed);
}

TEST_F(ConfirmTest, AFaultOfTheSecondGradingIsNoFlag) {
  scores({1, -1});
  grading.max_retries = 1;
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kNone);
  EXPECT_EQ(t.grade.reward, 1);
  EXPECT_EQ(confirmation_of(t.grade), Confirmation::kFault);
  EXPECT_EQ(requests_to("/grade").size(), 3U) << "it was tried again";
}

TEST_F(ConfirmTest, OnlyPassesOfRareSuccessesAreAskedTwice) {
  scores({0});
  EXPECT_THAT(run().grade.sub_rewards, IsEmpty());
  assignment.rare = false;
  scores({1, 0});
  EXPECT_EQ(run().fault, FaultReason::kNone);
  grading.confirm = "always";
  scores({1, 0});
  EXPECT_EQ(run().fault, FaultReason::kMasked);
  grading.confirm = "never";
  assignment.rare = true;
  scores({1, 0});
  EXPECT_EQ(run().fault, FaultReason::kNone);
}

TEST_F(ConfirmTest, AnIndependentGraderIsAskedIfThereIsOne) {
  grading.second.url = server.url("/second");
  grading.second.headers = {{"X-Key", "k"}};
  tool = [](const LoopbackRequest& r) {
    return r.path == "/second" ? answer(200, R"({"score":0.5})") : tool_output(r, "result");
  };
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kMasked);
  EXPECT_THAT(t.grade.sub_rewards, Contains(Pair(kConfirmScore, 0.5)));
  EXPECT_EQ(requests_to("/grade").size(), 1U);
  EXPECT_EQ(requests_to("/second").at(0).header("x-key"), "k");
}

class StoredGradingTest : public RolloutTest {
 protected:
  StoredGradingTest() {
    policy.script = {
        "Let me see. " + call_text("get", "{\"q\": 1}") + call_text("get", "{\"q\": 2}"),
        "<tool_call>\n{\"name\": \"get\"\n</tool_call>", call_text("grade", "{}"),
        "Dear all, it is done."};
    setup.model_dir = std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "models/qwen3-tied";
    setup.grader = grading;
    setup.job_id = "job-1";
    setup.name = "regrade-x";
  }

  std::vector<Trajectory> grade(std::vector<Trajectory> stored) {
    std::size_t next = 0;
    std::vector<Trajectory> all;
    StoredGrader(setup).grade(
        [&]() -> std::optional<StoredRollout> {
          if (next == stored.size()) return std::nullopt;
          return StoredRollout{stored[next++], &task};
        },
        [&](Trajectory t) { all.push_back(std::move(t)); });
    return all;
  }

  StoredGradingSetup setup;
};

TEST_F(StoredGradingTest, SendsTheRequestOfThenByteForByte) {
  const Trajectory stored = run();
  ASSERT_EQ(stored.tool_events.size(), 4U);
  ASSERT_EQ(stored.turns, 4);
  grader = [](const LoopbackRequest&) { return answer(200, R"({"score":1,"flags":["odd"]})"); };
  const auto again = grade({stored});
  const auto requests = requests_to("/grade");
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].body, requests[1].body);
  EXPECT_EQ(requests[1].header("x-rft-trace-id"), stored.trace_id);
  EXPECT_EQ(requests[1].header("idempotency-key"), stored.trace_id + ":regrade-x");
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].grade.score, 1);
  EXPECT_TRUE(again[0].grade.passed);
  EXPECT_EQ(again[0].fault, FaultReason::kNone);
}

TEST_F(StoredGradingTest, ATurnThatWasCutIsRebuiltToo) {
  options.max_new_tokens = 30;  // of the first turn, in the middle of its call
  const Trajectory stored = run();
  EXPECT_EQ(stored.end, EndReason::kMaxNewTokens);
  grade({stored});
  const auto requests = requests_to("/grade");
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].body, requests[1].body);
}

TEST_F(StoredGradingTest, WhatDoesNotFitItsTokensIsSaidAndNotGuessed) {
  Trajectory other = run();
  other.final_text = "Something else";
  Trajectory called = run();
  called.tool_events[0].arguments = "{}";
  Trajectory asked = run();
  asked.tokens[0] += 1;
  const auto before = requests_to("/grade").size();
  const auto all = grade({other, called, asked});
  ASSERT_EQ(all.size(), 3U);
  EXPECT_THAT(all[0].fault_detail, HasSubstr("the stored answer is not that of the tokens"));
  EXPECT_THAT(all[1].fault_detail, HasSubstr("the calls of turn 0 are not those of its tokens"));
  EXPECT_THAT(all[2].fault_detail, HasSubstr("its prompt is not what its row"));
  for (const Trajectory& t : all) EXPECT_EQ(t.fault, FaultReason::kGraderFault);
  EXPECT_EQ(requests_to("/grade").size(), before);
}

TEST_F(StoredGradingTest, WhatWasConfirmedIsConfirmedAgain) {
  assignment.rare = true;
  grader = [](const LoopbackRequest&) { return answer(200, R"({"score":1})"); };
  const Trajectory stored = run();
  ASSERT_EQ(confirmation_of(stored.grade), Confirmation::kConfirmed);
  grader = [](const LoopbackRequest& r) {
    return answer(200, r.header("idempotency-key").ends_with("-confirm") ? R"({"score":0})"
                                                                         : R"({"score":1})");
  };
  EXPECT_EQ(grade({stored}).at(0).fault, FaultReason::kMasked);
}

TEST_F(StoredGradingTest, ManyAreGradedSideBySideAndNoneIsLost) {
  const std::vector<Trajectory> stored = run_many(40);
  setup.grader.max_concurrency = 8;
  std::set<std::string> traces;
  for (const Trajectory& t : grade(stored)) traces.insert(t.trace_id);
  EXPECT_EQ(traces.size(), 40U);
}

TEST_F(StoredGradingTest, AGraderThatIsGivenUpEndsIt) {
  const Trajectory stored = run();
  setup.grader.url = "http://127.0.0.1:1/grade";
  setup.grader.give_up_after = std::chrono::milliseconds(300);
  try {
    grade(std::vector<Trajectory>(12, stored));
    FAIL() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kNoEndpoint);
  }
}

}  // namespace
}  // namespace rollcall
