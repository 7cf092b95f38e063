// SPDX-License-Identifier: Apache-2.0
// Who caused it decides: the agent's mistakes go back to it as text, the infrastructure's never
// become a reward.
#include <gmock/gmock.h>

#include <atomic>
#include <set>

#include "comms/error.h"
#include "comms/log.h"
#include "rollout_fixture.h"
#include "temp_folder.h"

namespace rollcall {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using Way = LoopbackReply::Way;

class RolloutFaultsTest : public RolloutTest {
 protected:
  RolloutFaultsTest() {
    policy.script = {call_text("get", "{\"q\": 1}"), "Done."};
    options.max_attempts = 1;
  }

  // The tool fails `times` times, then works.
  void tool_fails(int times, const LoopbackReply& how) {
    left_ = times;
    tool = [this, how](const LoopbackRequest& r) {
      return left_-- > 0 ? how : tool_output(r, "result");
    };
  }
  void grader_fails(int times, const LoopbackReply& how) {
    left_ = times;
    grader = [this, how](const LoopbackRequest&) {
      return left_-- > 0 ? how : answer(200, R"({"score":1})");
    };
  }

  void expect_recovered(const Trajectory& t, int retries) {
    EXPECT_EQ(t.fault, FaultReason::kNone) << t.fault_detail;
    ASSERT_EQ(t.tool_events.size(), 1U);
    EXPECT_EQ(t.tool_events[0].output, "result");
    EXPECT_EQ(t.tool_events[0].retries, retries);
    EXPECT_FALSE(t.tool_events[0].is_error);
  }

  // The transcript is there, a reward is not, and nobody asked the grader for one.
  void expect_tool_fault(const Trajectory& t) {
    EXPECT_EQ(t.fault, FaultReason::kToolFault);
    EXPECT_EQ(t.end, EndReason::kNone);
    EXPECT_FALSE(t.fault_detail.empty());
    EXPECT_GT(t.tokens.size(), static_cast<std::size_t>(t.prompt_length));
    EXPECT_TRUE(requests_to("/grade").empty());
  }

  Trajectory show(const LoopbackReply& reply) {
    tool = [reply](const LoopbackRequest&) { return reply; };
    const Trajectory t = run();
    EXPECT_EQ(t.fault, FaultReason::kNone);
    EXPECT_EQ(requests_to("/call").size(), 1U);
    EXPECT_TRUE(t.tool_events.at(0).is_error);
    return t;
  }

  std::atomic<int> left_{0};
};

std::string call_body(const json& output) { return json{{"output", output}}.dump(); }

// The agent's mistakes.

TEST_F(RolloutFaultsTest, UnknownToolIsToldToTheModel) {
  policy.script = {call_text("grade", "{}"), "Done."};
  const Trajectory t = run();
  EXPECT_EQ(t.end, EndReason::kFinished);
  EXPECT_EQ(json::parse(t.tool_events[0].output)["error"]["type"], "unknown_tool");
  EXPECT_TRUE(t.tool_events[0].is_error);
  EXPECT_EQ(t.tool_events[0].status, 0);
  EXPECT_TRUE(requests_to("/call").empty());
}

TEST_F(RolloutFaultsTest, UnreadableCallIsToldToTheModel) {
  policy.script = {"<tool_call>\n{\"name\": \"get\", \"arguments\": {\n</tool_call>", "Done."};
  const Trajectory t = run();
  EXPECT_EQ(t.end, EndReason::kFinished);
  ASSERT_EQ(t.tool_events.size(), 1U);
  EXPECT_EQ(t.tool_events[0].name, "");
  EXPECT_TRUE(t.tool_events[0].is_error);
  EXPECT_EQ(json::parse(t.tool_events[0].output)["error"]["type"], "invalid_arguments");
  EXPECT_GT(t.tool_events[0].span_end, t.tool_events[0].span_begin);
  EXPECT_TRUE(json::parse(requests_to("/grade").at(0).body)["sample"]["output_tools"].empty());
}

TEST_F(RolloutFaultsTest, ArgumentsThatAreNoObjectAreToldToTheModel) {
  policy.script = {call_text("get", "[1]"), "Done."};
  const Trajectory t = run();
  EXPECT_EQ(json::parse(t.tool_events.at(0).output)["error"]["type"], "invalid_arguments");
  EXPECT_TRUE(requests_to("/call").empty());
  EXPECT_EQ(t.end, EndReason::kFinished);
}

// 4xx: shown.

TEST_F(RolloutFaultsTest, ClientErrorShowsItsOutput) {
  EXPECT_EQ(show(answer(404, call_body("no such invoice"))).tool_events[0].output,
            "no such invoice");
}

TEST_F(RolloutFaultsTest, ClientErrorWithoutOutputShowsItsBody) {
  const Trajectory t = show(answer(422, R"({"detail":"q is missing"})"));
  EXPECT_EQ(t.tool_events[0].output, R"({"detail":"q is missing"})");
  EXPECT_EQ(t.tool_events[0].status, 422);
}

TEST_F(RolloutFaultsTest, ClientErrorBodyIsMadeValidAndCutToTheLimit) {
  tools[0].max_output_bytes = 4;
  EXPECT_EQ(show(answer(400, "ab\xC3\xA9xyz")).tool_events[0].output, "ab\xC3\xA9");
}

TEST_F(RolloutFaultsTest, EmptyClientErrorNamesItsStatus) {
  EXPECT_EQ(json::parse(show(answer(403, "")).tool_events[0].output)["error"]["code"], 403);
}

TEST_F(RolloutFaultsTest, ConflictOnTheFirstTryIsShown) {
  EXPECT_EQ(show(answer(409, "taken")).tool_events[0].output, "taken");
}

TEST_F(RolloutFaultsTest, TooLargeOutputIsShownAs413) {
  tools[0].max_output_bytes = 1000;
  for (const std::size_t size : {std::size_t{1001}, std::size_t{3} << 20}) {
    tool = [size](const LoopbackRequest& r) { return tool_output(r, std::string(size, 'x')); };
    const Trajectory t = run();
    EXPECT_EQ(json::parse(t.tool_events.at(0).output)["error"]["code"], 413);
    EXPECT_TRUE(t.tool_events[0].is_error);
    EXPECT_EQ(t.end, EndReason::kFinished);
  }
}

// Server faults: retried with the same bytes, then given up.

TEST_F(RolloutFaultsTest, RetriesServerFaults) {
  const std::string good = call_body("x");
  for (const LoopbackReply& how :
       std::vector<LoopbackReply>{answer(500, "boom"),
                                  answer(503, ""),
                                  answer(200, "no json"),
                                  answer(204, ""),
                                  answer(200, "{}"),
                                  answer(200, R"({"call_id":"call_99","output":"another's"})"),
                                  {.body = good, .way = Way::kClose},
                                  {.body = good, .way = Way::kTruncate},
                                  {.body = "garbage", .way = Way::kRaw}}) {
    tool_fails(2, how);
    expect_recovered(run(), 2);
  }
}

TEST_F(RolloutFaultsTest, RetriesAreByteIdenticalUnderOneKey) {
  tool_fails(3, answer(500));
  run();
  const auto sent = requests_to("/call");
  ASSERT_EQ(sent.size(), 4U);
  for (std::size_t i = 0; i < sent.size(); ++i) {
    auto headers = sent[i].headers, first = sent[0].headers;
    EXPECT_EQ(headers["x-rft-retry"], std::to_string(i));
    headers.erase("x-rft-retry");
    first.erase("x-rft-retry");
    EXPECT_EQ(headers, first);  // Idempotency-Key among them
    EXPECT_EQ(sent[i].body, sent[0].body);
  }
}

TEST_F(RolloutFaultsTest, TimeoutsAreRetriedOnSilentAndSlowServers) {
  tools[0].timeout = milliseconds(200);
  for (const Way way : {Way::kStall, Way::kDrip}) {
    tool_fails(1, {.way = way});
    expect_recovered(run(), 1);
  }
}

TEST_F(RolloutFaultsTest, GivesUpAfterItsRetriesWithoutReward) {
  for (const int retries : {0, 2}) {
    tools[0].max_retries = retries;
    tool_fails(100, answer(500, "boom"));
    const Trajectory t = run();
    expect_tool_fault(t);
    EXPECT_EQ(t.tool_events.at(0).retries, retries);
    EXPECT_THAT(t.fault_detail, HasSubstr("tool get at " + server.url("/call") + " after " +
                                          std::to_string(retries) + " retries: HTTP 500: boom"));
  }
}

TEST_F(RolloutFaultsTest, NewAttemptsHaveNewTracesAndTheSameSeed) {
  options.max_attempts = 3;
  assignment.attempt = 5;
  tools[0].max_retries = 1;
  tool_fails(4, answer(500));
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kNone);
  EXPECT_EQ(t.assignment.attempt, 7);
  std::set<std::string> traces, attempts, rollouts;
  for (const auto& r : requests_to("/call")) {
    traces.insert(json::parse(r.body)["trace_id"]);
    attempts.insert(r.header("x-rft-attempt"));
    rollouts.insert(r.header("x-rft-rollout-id"));
  }
  EXPECT_EQ(traces.size(), 3U);
  EXPECT_TRUE(traces.contains(t.trace_id));
  EXPECT_THAT(attempts, ElementsAre("5", "6", "7"));
  EXPECT_EQ(rollouts.size(), 1U);
  EXPECT_THAT(policy.seeds, ElementsAre(11U, 11U, 11U));
}

TEST_F(RolloutFaultsTest, FaultsOfAllAttemptsLeaveTheTranscriptAndNoGrade) {
  options.max_attempts = 2;
  tools[0].max_retries = 0;
  tool_fails(100, {.way = Way::kClose});
  const Trajectory t = run();
  expect_tool_fault(t);
  EXPECT_EQ(t.assignment.attempt, 1);
  EXPECT_EQ(t.turns, 1);
}

TEST_F(RolloutFaultsTest, FaultsOfAllAttemptsAreRewardZeroWhereTheUserSaysSo) {
  options.on_infra_exhausted = "zero";
  options.max_attempts = 2;
  tools[0].max_retries = 0;
  tool_fails(100, answer(500, "crashed"));
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kNone);
  EXPECT_EQ(t.end, EndReason::kInfraExhausted);
  EXPECT_EQ(t.assignment.attempt, 1);
  EXPECT_EQ(t.grade.reward, 0);
  EXPECT_FALSE(t.grade.passed);
  EXPECT_THAT(t.fault_detail, HasSubstr("crashed"));
  EXPECT_TRUE(requests_to("/grade").empty());
}

TEST_F(RolloutFaultsTest, OnlyToolsThatThePolicyCouldCrashMakeRewardZero) {
  options.on_infra_exhausted = "zero";
  tool_fails(100, {.status = 301, .headers = {{"Location", "/elsewhere"}}});
  EXPECT_EQ(run().fault, FaultReason::kToolFault);
  tool = [](const LoopbackRequest& r) { return tool_output(r, "result"); };
  grader_fails(100, answer(500));
  EXPECT_EQ(run().fault, FaultReason::kGraderFault);
}

TEST_F(RolloutFaultsTest, OneFaultyCallOfATurnIsEnough) {
  tools[0].max_retries = 0;
  policy.script = {call_text("get", "{\"q\": 1}") + call_text("get", "{\"q\": 2}")};
  tool = [](const LoopbackRequest& r) {
    return json::parse(r.body)["call_id"] == "call_2" ? answer(500) : tool_output(r, "fine");
  };
  const Trajectory t = run();
  expect_tool_fault(t);
  EXPECT_EQ(t.tool_events.at(0).output, "fine");
}

TEST_F(RolloutFaultsTest, ServerDyingMidBodyIsAFault) {
  tools[0].max_retries = 1;
  tool_fails(100, {.body = call_body(std::string(100000, 'x')), .way = Way::kTruncate});
  expect_tool_fault(run());
}

// Nothing was sent, so it is nobody's fault and may be sent again, whatever `retry` says.
TEST_F(RolloutFaultsTest, DeadServerIsWaitedForUntilItIsGivenUp) {
  {
    tools[0].url =
        LoopbackServer([](const LoopbackRequest&) { return LoopbackReply{}; }).url("/call");
  }
  tools[0].retry = RetryPolicy::kNever;
  tools[0].give_up_after = milliseconds(50);
  try {
    run();
    FAIL() << "it ends";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kNoEndpoint);
    EXPECT_THAT(error.what(), HasSubstr("tool get at " + tools[0].url + " has failed for "));
  }
}

TEST_F(RolloutFaultsTest, NeverIsSentOnce) {
  tools[0].retry = RetryPolicy::kNever;
  for (const LoopbackReply& how : std::vector<LoopbackReply>{answer(500), {.way = Way::kClose}}) {
    tool_fails(100, how);
    const auto before = requests_to("/call").size();
    expect_tool_fault(run());
    EXPECT_EQ(requests_to("/call").size(), before + 1);
  }
}

TEST_F(RolloutFaultsTest, KeyedIsSentAgainOnlyOnceReplaysWereSeen) {
  tools[0].retry = RetryPolicy::kKeyed;
  tool_fails(100, answer(500));
  expect_tool_fault(run());
  EXPECT_EQ(requests_to("/call").size(), 1U);
  policy.script = {call_text("get", "{\"q\": 1}"), call_text("get", "{\"q\": 2}"), "Done."};
  int calls = 0;
  tool = [&calls](const LoopbackRequest& r) {
    LoopbackReply reply = tool_output(r, "result");
    if (calls == 0) reply.headers = {{"Idempotent-Replayed", "true"}};
    return calls++ == 1 ? answer(500) : reply;
  };
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kNone);
  EXPECT_EQ(t.tool_events.at(1).retries, 1);
}

// Redirects.

TEST_F(RolloutFaultsTest, RedirectsWithinTheOriginAreFollowed) {
  tool = [](const LoopbackRequest& r) {
    if (r.path == "/call") return LoopbackReply{.status = 307, .headers = {{"Location", "/moved"}}};
    return tool_output(r, "result");
  };
  expect_recovered(run(), 0);
  EXPECT_EQ(requests_to("/moved").at(0).body, requests_to("/call").at(0).body);
}

TEST_F(RolloutFaultsTest, OtherRedirectsAreConfigurationFaultsByName) {
  options.max_attempts = 3;
  LoopbackServer other([](const LoopbackRequest&) { return LoopbackReply{}; });
  for (const int status : {301, 302, 303, 307, 308}) {
    tool_fails(100, {.status = status, .headers = {{"Location", other.url("/x?key=abc")}}});
    const auto before = requests_to("/call").size();
    const Trajectory t = run();
    expect_tool_fault(t);
    EXPECT_THAT(t.fault_detail,
                HasSubstr("HTTP " + std::to_string(status) + " redirects to http://127.0.0.1"));
    EXPECT_THAT(t.fault_detail, Not(HasSubstr("abc")));
    EXPECT_EQ(requests_to("/call").size(),
              before + 1);  // neither retried nor tried in a new attempt
  }
  EXPECT_TRUE(other.requests().empty());
}

// 422: of a retry it is about the Idempotency-Key.

TEST_F(RolloutFaultsTest, KeyThatIsTakenIsAConfigurationFault) {
  options.max_attempts = 3;
  int tries = 0;
  tool = [&tries](const LoopbackRequest&) {
    return tries++ == 0 ? answer(500) : answer(422, "key reused");
  };
  const Trajectory t = run();
  expect_tool_fault(t);
  EXPECT_EQ(tries, 2);  // neither retried nor tried in a new attempt
  EXPECT_THAT(t.fault_detail, HasSubstr("HTTP 422: key reused; said to a retry"));
  EXPECT_EQ(t.tool_events.at(0).output, "");
}

TEST_F(RolloutFaultsTest, OutputOf422IsShownAlsoOnARetry) {
  int tries = 0;
  tool = [&tries](const LoopbackRequest&) {
    return tries++ == 0 ? answer(500) : answer(422, call_body("q must be positive"));
  };
  EXPECT_EQ(run().tool_events.at(0).output, "q must be positive");
}

TEST_F(RolloutFaultsTest, KeyThatIsTakenAtTheGraderIsAFault) {
  int tries = 0;
  grader = [&tries](const LoopbackRequest&) { return answer(tries++ == 0 ? 500 : 422); };
  EXPECT_EQ(run().fault, FaultReason::kGraderFault);
  EXPECT_EQ(tries, 2);
}

// Waits.

TEST_F(RolloutFaultsTest, BusyServersCostNoRetryBudget) {
  tools[0].max_retries = 0;
  for (const int status : {408, 425, 429}) {
    tool_fails(6, answer(status));
    expect_recovered(run(), 6);
  }
}

TEST_F(RolloutFaultsTest, ConflictOnARetryIsWaitedFor) {
  tools[0].max_retries = 1;
  int tries = 0;
  tool = [&tries](const LoopbackRequest& r) {
    const int n = tries++;
    return n == 0 ? answer(500) : n < 4 ? answer(409, "still running") : tool_output(r, "result");
  };
  expect_recovered(run(), 4);
}

TEST_F(RolloutFaultsTest, RetryAfterIsHonoured) {
  policy.script = {call_text("get", "{\"q\": 1}") + call_text("get", "{\"q\": 2}"), "Done."};
  tool = [](const LoopbackRequest& r) {
    LoopbackReply busy = answer(json::parse(r.body)["call_id"] == "call_1" ? 429 : 503);
    busy.headers = {{"Retry-After", "1"}};
    return r.header("x-rft-retry") == "0" ? busy : tool_output(r, "result");
  };
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kNone);
  for (const auto& event : t.tool_events) {
    EXPECT_EQ(event.retries, 1);
    EXPECT_GE(event.latency_s, 1.0);
  }
}

TEST_F(RolloutFaultsTest, WaitsEndAtTheCallDeadline) {
  tools[0].timeout = milliseconds(60);
  tools[0].max_retries = 1;
  LoopbackReply busy = answer(429, "busy");
  busy.headers = {{"Retry-After", "3600"}};
  tool_fails(1000000, busy);
  const Trajectory t = run();
  expect_tool_fault(t);
  EXPECT_LT(t.wall_time_s, 1.0);
  EXPECT_EQ(t.tool_events.at(0).retries, 2);  // at the deadline, and the one of the budget
}

// The grader.

TEST_F(RolloutFaultsTest, GraderFaultsRepeatGradingOnly) {
  options.max_attempts = 3;
  for (const LoopbackReply& how : std::vector<LoopbackReply>{
           answer(500),
           answer(404),
           answer(400, R"({"score":0})"),
           answer(200, ""),
           answer(200, R"({"score":"1"})"),
           answer(200, R"({"score":NaN})"),
           answer(200, R"({"score":1e400})"),
           answer(200, R"({"score":1,"score":0})"),
           answer(200, R"({"error":{"code":"busy","message":"later","retryable":true}})"),
           {.way = Way::kClose},
           {.body = R"({"score":0})", .way = Way::kTruncate}}) {
    grader_fails(2, how);
    const auto before = requests_to("/grade").size();
    const Trajectory t = run();
    EXPECT_EQ(t.fault, FaultReason::kNone) << t.fault_detail;
    EXPECT_DOUBLE_EQ(t.grade.reward, 1);
    EXPECT_EQ(t.grade.retries, 2);
    const auto sent = requests_to("/grade");
    ASSERT_GE(sent.size(), before + 3);
    for (std::size_t i = before; i < sent.size(); ++i) {
      EXPECT_EQ(sent[i].body, sent[before].body);
      EXPECT_EQ(sent[i].header("idempotency-key"), t.trace_id + ":grade");
    }
  }
}

TEST_F(RolloutFaultsTest, GraderThatNeverGradesIsAFaultWithTheTranscript) {
  options.max_attempts = 3;
  for (const LoopbackReply& how : std::vector<LoopbackReply>{answer(500, "down"),
                                                             answer(200, R"({"score":null})"),
                                                             answer(200, R"({"score":false})"),
                                                             {.way = Way::kClose},
                                                             answer(302),
                                                             {.body = std::string(3 << 20, ' ')}}) {
    policy.seeds.clear();
    grader_fails(1000, how);
    const Trajectory t = run();
    EXPECT_EQ(t.fault, FaultReason::kGraderFault);
    EXPECT_EQ(t.end, EndReason::kFinished);
    EXPECT_EQ(t.final_text, "Done.");
    EXPECT_EQ(t.tool_events.size(), 1U);
    EXPECT_THAT(t.fault_detail, HasSubstr("grader at " + server.url("/grade") + " after"));
    EXPECT_EQ(policy.seeds.size(), 1U);  // never played again
    EXPECT_EQ(t.assignment.attempt, 0);
  }
}

TEST_F(RolloutFaultsTest, GraderErrorThatIsFinalIsNotRetried) {
  grader_fails(100,
               answer(200, R"({"error":{"code":"no_db","message":"gone","retryable":false}})"));
  const Trajectory t = run();
  EXPECT_EQ(t.fault, FaultReason::kGraderFault);
  EXPECT_THAT(t.fault_detail, HasSubstr("no_db: gone"));
  EXPECT_EQ(requests_to("/grade").size(), 1U);
}

TEST_F(RolloutFaultsTest, MaskedSampleIsNoReward) {
  grader = [](const LoopbackRequest&) { return answer(200, R"({"score":0,"mask_sample":true})"); };
  EXPECT_EQ(run().fault, FaultReason::kMasked);
  grader = [](const LoopbackRequest&) { return answer(200, R"({"score":1,"flags":["hacking"]})"); };
  grading.flags = {{"hacking", "mask", 0}};
  EXPECT_EQ(run().fault, FaultReason::kMasked);
}

// Secrets.

TEST_F(RolloutFaultsTest, SecretsReachNeitherDetailNorLogNorTranscript) {
  const TempFolder folder;
  log_open(0, folder / "log", false);
  tools[0].headers = {{"Authorization", "Bearer sk-topsecret"}};
  tools[0].secrets = {{"TOOL_KEY", "sk-topsecret"}};
  grading.headers = {{"X-Key", "gradersecret"}};
  grading.secrets = {{"GRADER_KEY", "gradersecret"}};
  tools[0].max_retries = 0;
  tool = [](const LoopbackRequest& r) {
    return answer(500, "you sent " + r.header("authorization"));
  };
  const Trajectory t = run();
  EXPECT_EQ(requests_to("/call").at(0).header("authorization"), "Bearer sk-topsecret");
  EXPECT_THAT(t.fault_detail, HasSubstr("you sent Bearer [redacted]"));
  tool = [](const LoopbackRequest& r) {
    return tool_output(r, "echo " + r.header("authorization"));
  };
  EXPECT_EQ(run().tool_events.at(0).output, "echo Bearer [redacted]");
  tools[0].max_output_bytes = 20;
  tool = [](const LoopbackRequest& r) {
    return answer(400, "refused " + r.header("authorization"));
  };
  EXPECT_THAT(run().tool_events.at(0).output, Not(HasSubstr("sk-")));
  tools[0].max_output_bytes = 1000;
  // Nor does a part of one, where a long reply is cut.
  grader = [](const LoopbackRequest& r) {
    return answer(500, std::string(195, 'x') + r.header("x-key"));
  };
  EXPECT_THAT(run().fault_detail, Not(HasSubstr("xgra")));
  grader = [](const LoopbackRequest& r) { return answer(500, r.header("x-key")); };
  EXPECT_THAT(run().fault_detail, Not(HasSubstr("gradersecret")));
  log_flush();
  const std::string log = slurp(folder / "log");
  EXPECT_THAT(log, HasSubstr("after 0 retries"));
  EXPECT_THAT(log, Not(HasSubstr("secret")));
}

TEST_F(RolloutFaultsTest, SecretsInTheGradersWordsAreRedacted) {
  grading.headers = {{"X-Key", "gradersecret"}};
  grading.secrets = {{"GRADER_KEY", "gradersecret"}};
  grader = [](const LoopbackRequest& r) {
    const std::string key = r.header("x-key");
    return answer(200, json{{"score", 1},
                            {"explanation", "key " + key},
                            {"sub_rewards", {{key, 0.5}}},
                            {"gates", {{key, true}}},
                            {"flags", {key}}}
                           .dump());
  };
  const Grade grade = run().grade;
  EXPECT_EQ(grade.explanation, "key [redacted]");
  EXPECT_EQ(grade.sub_rewards.at(0).first, "[redacted]");
  EXPECT_EQ(grade.gates.at(0).first, "[redacted]");
  EXPECT_EQ(grade.flags.at(0), "[redacted]");
}

TEST_F(RolloutFaultsTest, LiteralHeaderValuesAreNoSecrets) {
  tools[0].headers = {{"X-Env", "open"}};
  tool = [](const LoopbackRequest& r) { return tool_output(r, "3 open invoices"); };
  EXPECT_EQ(run().tool_events.at(0).output, "3 open invoices");
}

// A secret that is a word of the reply's JSON, or one of its numbers, does not change the grade.
TEST_F(RolloutFaultsTest, AGradeIsReadBeforeAnythingInItIsRedacted) {
  for (const char* secret : {"compiles", "0.123456"}) {
    grading.secrets = {{"GRADER_KEY", secret}};
    grader = [](const LoopbackRequest&) {
      return answer(200, R"({"score":0.123456,"gates":{"compiles":false}})");
    };
    const Trajectory t = run();
    EXPECT_EQ(t.fault, FaultReason::kNone) << t.fault_detail;
    EXPECT_DOUBLE_EQ(t.grade.score, 0.123456);
    EXPECT_FALSE(t.grade.gates.at(0).second);
  }
}

}  // namespace
}  // namespace rollcall
