// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/rollout.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <asio/bind_cancellation_slot.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/co_spawn.hpp>
#include <atomic>
#include <set>

#include "comms/error.h"
#include "rollout_fixture.h"

namespace rollcall {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Pair;

std::string get(int q) { return call_text("get", "{\"q\": " + std::to_string(q) + "}"); }

TEST_F(RolloutTest, FinishesWhenThePolicyAnswers) {
  const Trajectory t = run();
  EXPECT_EQ(t.end, EndReason::kFinished);
  EXPECT_EQ(t.fault, FaultReason::kNone);
  EXPECT_EQ(t.final_text, "Hello.");
  EXPECT_EQ(t.turns, 1);
  EXPECT_DOUBLE_EQ(t.grade.score, 0.75);
  EXPECT_DOUBLE_EQ(t.grade.reward, 0.75);
  EXPECT_THAT(t.trace_id, MatchesRegex("trace_[0-9a-f-]{36}"));
  EXPECT_GT(t.wall_time_s, 0);
  EXPECT_GT(t.grade.latency_s, 0);
  EXPECT_GE(t.wall_time_s, t.generate_time_s);
  EXPECT_THAT(policy.seeds, ElementsAre(11U));
}

TEST_F(RolloutTest, KeepsSampledTokensAsTheyWere) {
  policy.script = {get(1), "Done."};
  const Trajectory t = run();
  auto first = policy.spell(get(1)), last = policy.spell("Done.");
  first.push_back(format->stop_ids().front());
  last.push_back(format->stop_ids().front());
  std::vector<std::int32_t> expected = policy.prompts[0];
  const auto add = [&](const std::vector<std::int32_t>& part) {
    expected.insert(expected.end(), part.begin(), part.end());
  };
  add(first);
  add(policy.deltas[1]);
  add(last);
  EXPECT_EQ(t.tokens, expected);
  EXPECT_NE(tokenizer.encode(get(1), true), policy.spell(get(1)));  // else this test could not fail
  EXPECT_EQ(policy.deltas[1],
            format->render_tool_results(std::vector<std::string>{"result"}, false));
}

TEST_F(RolloutTest, ParallelArraysMarkActionsLogprobsAndVersions) {
  policy.script = {get(1), "Done."};
  const Trajectory t = run();
  ASSERT_EQ(t.is_action.size(), t.tokens.size());
  ASSERT_EQ(t.behavior_logprobs.size(), t.tokens.size());
  ASSERT_EQ(t.token_version.size(), t.tokens.size());
  const auto prompt = static_cast<std::size_t>(t.prompt_length);
  EXPECT_EQ(prompt, policy.prompts[0].size());
  for (std::size_t i = 0; i < t.tokens.size(); ++i) {
    const bool in_result = static_cast<std::int64_t>(i) >= t.tool_events[0].span_begin &&
                           static_cast<std::int64_t>(i) < t.tool_events[0].span_end;
    EXPECT_EQ(t.is_action[i] == 1, i >= prompt && !in_result) << i;
    EXPECT_EQ(t.token_version[i], t.is_action[i] == 1 ? 7 : -1);
    EXPECT_EQ(t.behavior_logprobs[i] < 0, t.is_action[i] == 1);
  }
  EXPECT_FLOAT_EQ(t.behavior_logprobs[prompt], -0.125F);
  EXPECT_FLOAT_EQ(t.behavior_logprobs[static_cast<std::size_t>(t.tool_events[0].span_end)],
                  -0.125F);
}

TEST_F(RolloutTest, SendsToolCallsAsTheProtocolSays) {
  policy.script = {get(5), "Done."};
  const Trajectory t = run();
  const auto sent = requests_to("/call").at(0);
  EXPECT_EQ(
      sent.body,
      R"({"type":"function_call","id":"fc_1","call_id":"call_1","name":"get","arguments":"{\"q\": 5}","trace_id":")" +
          t.trace_id + R"(","item":)" + task.item + "}");
  EXPECT_EQ(sent.header("idempotency-key"), t.trace_id + ":call_1");
  EXPECT_EQ(sent.header("x-rft-job-id"), "job-1");
  EXPECT_EQ(sent.header("x-rft-rollout-id"), "rollout_train_4_0_9_2");
  EXPECT_EQ(sent.header("x-rft-attempt"), "0");
  EXPECT_EQ(sent.header("x-rft-trace-id"), t.trace_id);
  EXPECT_EQ(sent.header("x-rft-step"), "4");
  EXPECT_EQ(sent.header("x-rft-split"), "train");
  EXPECT_EQ(sent.header("x-rft-retry"), "0");
  std::string digits = t.trace_id.substr(6);
  std::erase(digits, '-');
  EXPECT_THAT(sent.header("traceparent"), MatchesRegex("00-" + digits + "-[0-9a-f]{16}-01"));
  EXPECT_EQ(t.tool_events[0].status, 200);
  EXPECT_GT(t.tool_events[0].latency_s, 0);
}

TEST_F(RolloutTest, LeavesItemOutWhenToldTo) {
  tools[0].send_item = false;
  policy.script = {get(5), "Done."};
  run();
  EXPECT_EQ(json::parse(requests_to("/call").at(0).body)["item"], json::object());
}

TEST_F(RolloutTest, SendsTheWholeRolloutToTheGrader) {
  policy.script = {"Let me look. " + get(1), "The answer."};
  const Trajectory t = run();
  const auto sent = requests_to("/grade").at(0);
  EXPECT_THAT(sent.body, HasSubstr("\"item\":" + task.item));  // as it stands: blanks, 1.50
  EXPECT_EQ(sent.header("idempotency-key"), t.trace_id + ":grade");
  const json body = json::parse(sent.body);
  EXPECT_EQ(body["trace_id"], t.trace_id);
  const json& sample = body["sample"];
  EXPECT_EQ(sample["output_text"], "The answer.");
  EXPECT_EQ(sample["output_json"], nullptr);
  EXPECT_EQ(sample["output_reasoning_summary"], nullptr);
  EXPECT_EQ(
      sample["output_tools"],
      json::parse(
          R"([{"id":"call_1","type":"function","function":{"name":"get","arguments":"{\"q\": 1}"}}])"));
  EXPECT_EQ(
      sample["choices"],
      json::parse(
          R"([{"index":0,"message":{"role":"assistant","content":"The answer."},"finish_reason":"stop"}])"));
  EXPECT_EQ(sample["stop_reason"], "finished");
  EXPECT_EQ(sample["usage"]["total_tokens"], t.tokens.size());
  const json& items = sample["trajectory"];
  ASSERT_EQ(items.size(), 4U);
  EXPECT_EQ(items[0]["content"][0]["text"], "Let me look. ");
  EXPECT_EQ(
      items[1],
      json::parse(
          R"({"type":"function_call","id":"fc_1","call_id":"call_1","name":"get","arguments":"{\"q\": 1}","status":"completed"})"));
  EXPECT_EQ(
      items[2],
      json::parse(
          R"({"type":"function_call_output","id":"fc_1","call_id":"call_1","output":"result"})"));
  EXPECT_EQ(items[3]["role"], "assistant");
}

TEST_F(RolloutTest, GraderSeesJsonAnswersParsed) {
  policy.script = {R"({"total": 3})"};
  run();
  EXPECT_EQ(json::parse(requests_to("/grade").at(0).body)["sample"]["output_json"],
            json::parse(R"({"total":3})"));
}

TEST_F(RolloutTest, AnswersParallelCallsInCallOrder) {
  tool = [](const LoopbackRequest& r) {
    const std::string id = json::parse(r.body)["call_id"];
    LoopbackReply reply = tool_output(r, "for " + id);
    reply.delay = milliseconds(id == "call_1" ? 40 : 1);
    return reply;
  };
  policy.script = {get(1) + "\n" + get(2) + "\n" + get(3), "Done."};
  const Trajectory t = run();
  ASSERT_EQ(t.tool_events.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_EQ(t.tool_events[i].output, "for call_" + std::to_string(i + 1));
  EXPECT_EQ(policy.deltas[1],
            format->render_tool_results(
                std::vector<std::string>{"for call_1", "for call_2", "for call_3"}, false));
  EXPECT_GT(server.most_at_once(), 1);
}

TEST_F(RolloutTest, NeverPassesTheConcurrencyCaps) {
  tools[0].max_concurrency = 3;
  grading.max_concurrency = 3;
  tool = [](const LoopbackRequest& r) {
    LoopbackReply reply = tool_output(r, "x");
    reply.delay = milliseconds(2);
    return reply;
  };
  policy.script = {get(1) + get(2) + get(3) + get(4), "Done."};
  for (const auto& t : run_many(8)) EXPECT_EQ(t.end, EndReason::kFinished);
  EXPECT_EQ(requests_to("/call").size(), 32U);
  EXPECT_LE(server.most_at_once(), 6);
}

TEST_F(RolloutTest, KeepsToTheRateOfAnEndpoint) {
  policy.script = {get(1) + get(2) + get(3), "Done."};
  tools[0].rate_limit = 100;
  std::atomic<int> left = 2;  // retries wait for their turn too
  tool = [&left](const LoopbackRequest& r) {
    return left-- > 0 ? answer(500) : tool_output(r, "x");
  };
  const auto start = std::chrono::steady_clock::now();
  for (const auto& t : run_many(2)) EXPECT_EQ(t.end, EndReason::kFinished) << t.fault_detail;
  EXPECT_EQ(requests_to("/call").size(), 8U);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(70));
}

TEST_F(RolloutTest, RunsHundredsOfRolloutsSideBySide) {
  tool = [](const LoopbackRequest& r) {
    LoopbackReply reply = tool_output(r, "x");
    reply.delay = milliseconds(20);
    return reply;
  };
  policy.script = {get(1), get(2), "Done."};
  tools[0].max_concurrency = 1000;
  const auto start = std::chrono::steady_clock::now();
  const auto trajectories = run_many(300);
  const auto took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took, milliseconds(300 * 2 * 20 / 3));  // one after another: 12 s
  std::set<std::string> traces;
  for (const auto& t : trajectories) {
    EXPECT_EQ(t.end, EndReason::kFinished) << t.fault_detail;
    traces.insert(t.trace_id);
  }
  EXPECT_EQ(traces.size(), 300U);
}

TEST_F(RolloutTest, KeepsCookiesWithinATraceOnly) {
  tool = [](const LoopbackRequest& r) {
    LoopbackReply reply = tool_output(r, "x");
    reply.headers = {{"Set-Cookie", "session=s" + r.header("x-rft-trace-id") + "; Path=/"}};
    return reply;
  };
  policy.script = {get(1), get(2), "Done."};
  for (const auto& t : run_many(2)) {
    int calls = 0;
    for (const auto& r : server.requests()) {
      if (r.header("x-rft-trace-id") != t.trace_id) continue;
      EXPECT_EQ(r.header("cookie"), calls++ == 0 ? "" : "session=s" + t.trace_id);
    }
    EXPECT_EQ(calls, 3);
  }
}

TEST_F(RolloutTest, ReadsContentListsAndHidesExtensions) {
  tool = [](const LoopbackRequest&) {
    return answer(
        200,
        R"({"output":[{"type":"output_text","text":"seen"}],"reward":0.5,"metrics":{"rows":3}})");
  };
  policy.script = {get(1), get(2), "Done."};
  const Trajectory t = run();
  EXPECT_EQ(t.tool_events[0].output, "seen");
  EXPECT_THAT(t.grade.sub_rewards,
              ElementsAre(Pair("tool.get.reward", 1.0), Pair("tool.get.rows", 6.0)));
  EXPECT_DOUBLE_EQ(t.grade.reward, 0.75);
}

using Shares = std::vector<std::pair<std::string, double>>;

TEST_F(RolloutTest, SaysWhereAServerWouldShowThePolicySomethingElse) {
  options.check_reencoding = true;
  // Its tokens are single characters, which no encoder gives.
  policy.script = {"<think>\nhm\n</think>\n\nI look.\n" + get(1), "Done."};
  EXPECT_EQ(run().grade.sub_rewards,
            (Shares{{"reencoding.other_text", 0.0}, {"reencoding.other_tokens", 1.0}}));
  // Spaces that the template would not write; a thought that it would add.
  policy.script = {call_text("get", "{\"id\":1}"), "Done."};
  EXPECT_EQ(run().grade.sub_rewards,
            (Shares{{"reencoding.other_text", 1.0}, {"reencoding.other_tokens", 1.0}}));
  policy.script = {"Done."};
  EXPECT_EQ(run().grade.sub_rewards, Shares());
}

TEST_F(RolloutTest, EndsWhenAToolSaysDone) {
  tool = [](const LoopbackRequest&) { return answer(200, R"({"output":"bye","done":true})"); };
  policy.script = {get(1)};
  const Trajectory t = run();
  EXPECT_EQ(t.end, EndReason::kToolDone);
  EXPECT_EQ(t.turns, 1);
  EXPECT_EQ(t.tool_events[0].output, "bye");
  EXPECT_DOUBLE_EQ(t.grade.reward, 0.75);
}

TEST_F(RolloutTest, EndsAtAToolWithoutEndpointAndGradesIt) {
  policy.script = {get(1) + call_text("submit", "{\"x\": 1}")};
  const Trajectory t = run();
  EXPECT_EQ(t.end, EndReason::kUnservedTool);
  EXPECT_EQ(t.fault, FaultReason::kNone);
  EXPECT_EQ(requests_to("/call").size(), 1U);
  const json sample = json::parse(requests_to("/grade").at(0).body)["sample"];
  EXPECT_EQ(sample["output_tools"][1]["function"]["name"], "submit");
  EXPECT_EQ(sample["choices"][0]["message"]["tool_calls"].size(), 2U);
  EXPECT_EQ(sample["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(sample["trajectory"].size(), 3U);  // two calls, one output
}

TEST_F(RolloutTest, EndsAtMaxTurns) {
  options.max_turns = 2;
  policy.script = {get(1), get(2), "never reached"};
  const Trajectory t = run();
  EXPECT_EQ(t.end, EndReason::kMaxTurns);
  EXPECT_EQ(t.turns, 2);
  EXPECT_EQ(requests_to("/call").size(), 1U);
  EXPECT_EQ(json::parse(requests_to("/grade").at(0).body)["sample"]["choices"][0]["finish_reason"],
            "length");
}

TEST_F(RolloutTest, EndsAtMaxToolCalls) {
  options.max_tool_calls = 2;
  policy.script = {get(1), get(2) + get(3), "never reached"};
  const Trajectory t = run();
  EXPECT_EQ(t.end, EndReason::kMaxToolCalls);
  EXPECT_EQ(requests_to("/call").size(), 1U);
  EXPECT_DOUBLE_EQ(t.grade.reward, 0.75);
}

TEST_F(RolloutTest, EndsWhenATurnIsCut) {
  options.max_new_tokens = 10;
  policy.script = {"a long story without end"};
  const Trajectory t = run();
  EXPECT_EQ(t.end, EndReason::kMaxNewTokens);
  EXPECT_EQ(t.final_text, "a long sto");
  EXPECT_EQ(static_cast<std::int64_t>(t.tokens.size()), t.prompt_length + 10);
}

TEST_F(RolloutTest, EndsWhenTheContextIsFull) {
  run();
  const auto prompt = static_cast<std::int64_t>(policy.prompts[0].size());
  const auto turn = static_cast<std::int64_t>(policy.spell(get(1)).size()) + 1;
  const auto result = static_cast<std::int64_t>(
      format->render_tool_results(std::vector<std::string>{"result"}, false).size());
  policy.script = {get(1), "Done."};
  // By room: none for the prompt, for the turn, for the results, for an answer; one token of it;
  // all of it.
  for (const std::int64_t context : {prompt, prompt + 5, prompt + turn, prompt + turn + result,
                                     prompt + turn + result + 1, prompt + turn + result + 6}) {
    options.context = context;
    const Trajectory t = run();
    const bool fits = context == prompt + turn + result + 6;
    EXPECT_EQ(t.end, fits ? EndReason::kFinished : EndReason::kContextFull) << context;
    EXPECT_LE(static_cast<std::int64_t>(t.tokens.size()), context);
    EXPECT_EQ(t.turns, context > prompt + turn + result ? 2 : context > prompt ? 1 : 0);
    EXPECT_EQ(t.is_action.size(), t.tokens.size());
    EXPECT_DOUBLE_EQ(t.grade.reward, 0.75);
  }
}

TEST_F(RolloutTest, BelievesTheEngineThatTheContextIsFull) {
  policy.context_full = true;
  EXPECT_EQ(run().end, EndReason::kContextFull);
}

TEST_F(RolloutTest, LimitsMayZeroOrMask) {
  options.max_turns = 1;
  policy.script = {get(1)};
  options.on_limit = "zero";
  grading.pass_threshold = 0.5;
  const Trajectory zero = run();
  EXPECT_FALSE(zero.grade.passed);
  EXPECT_DOUBLE_EQ(zero.grade.score, 0.75);
  EXPECT_DOUBLE_EQ(zero.grade.reward, 0);
  EXPECT_EQ(zero.fault, FaultReason::kNone);
  options.on_limit = "mask";
  EXPECT_EQ(run().fault, FaultReason::kMasked);
  policy.script = {"An answer is no limit."};
  EXPECT_EQ(run().fault, FaultReason::kNone);
}

TEST_F(RolloutTest, ReturnsWhatItHasWhenCancelled) {
  tool = [](const LoopbackRequest&) { return LoopbackReply{.way = LoopbackReply::Way::kStall}; };
  policy.script = {get(1) + get(2)};
  Environment environment(client, tools, grading, "job-1");
  const RolloutContext context{policy, environment, *format, tokenizer, options};
  asio::cancellation_signal stop;
  Trajectory t;
  asio::co_spawn(loop, run_rollout(assignment, task, context),
                 asio::bind_cancellation_slot(
                     stop.slot(), [&](std::exception_ptr, Trajectory r) { t = std::move(r); }));
  while (requests_to("/call").size() < 2) loop.run_for(milliseconds(1));
  stop.emit(asio::cancellation_type::terminal);
  loop.run();
  EXPECT_EQ(t.fault, FaultReason::kCancelled);
  EXPECT_LT(t.wall_time_s, 1);
  EXPECT_EQ(t.turns, 1);
  EXPECT_TRUE(requests_to("/grade").empty());
}

TEST_F(RolloutTest, MayBeThrownAwayAtAnyMoment) {
  for (const int wait_ms : {0, 1, 3, 10}) {
    asio::io_context own;
    HttpClient http(own.get_executor());
    tools[0].max_concurrency = 2;
    tool = [](const LoopbackRequest&) { return LoopbackReply{.way = LoopbackReply::Way::kStall}; };
    policy.script = {get(1) + get(2) + get(3)};
    Environment environment(http, tools, grading, "job-1");
    const RolloutContext context{policy, environment, *format, tokenizer, options};
    asio::co_spawn(own, run_rollout(assignment, task, context),
                   [](std::exception_ptr, const Trajectory&) {});
    own.run_for(milliseconds(wait_ms));
  }
}

TEST_F(RolloutTest, ThrowsForARowThatIsNoTask) {
  task.tools = "{";
  EXPECT_THROW(run(), Error);
}

}  // namespace
}  // namespace rollcall
