// SPDX-License-Identifier: Apache-2.0
#include "rollout_fixture.h"

#include <algorithm>
#include <asio/co_spawn.hpp>

namespace rollcall {
namespace {

const std::filesystem::path kFixtureModel =
    std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "models/qwen3-tied";

struct ScriptedSession : PolicySession {
  std::size_t turn = 0;
};

}  // namespace

std::unique_ptr<PolicySession> ScriptedPolicy::open(std::span<const std::int32_t> prompt,
                                                    std::uint64_t seed) {
  prompts.emplace_back(prompt.begin(), prompt.end());
  seeds.push_back(seed);
  return std::make_unique<ScriptedSession>();
}

std::vector<std::int32_t> ScriptedPolicy::spell(const std::string& text) const {
  std::vector<std::int32_t> tokens;
  for (const char c : text) {
    const auto one = tokenizer_.encode(std::string_view(&c, 1), false);
    tokens.insert(tokens.end(), one.begin(), one.end());
  }
  return tokens;
}

asio::awaitable<Completion> ScriptedPolicy::complete(PolicySession& session,
                                                     std::span<const std::int32_t> delta,
                                                     const SamplingOptions& sampling) {
  deltas.emplace_back(delta.begin(), delta.end());
  auto& turn = dynamic_cast<ScriptedSession&>(session).turn;
  Completion completion;
  completion.tokens = spell(script.at(std::min(turn++, script.size() - 1)));
  completion.tokens.push_back(stop_id_);
  if (static_cast<std::int32_t>(completion.tokens.size()) > sampling.max_new_tokens) {
    completion.tokens.resize(static_cast<std::size_t>(sampling.max_new_tokens));
    completion.stop = StopReason::kMaxNewTokens;
  }
  if (context_full) completion.stop = StopReason::kContextFull;
  for (std::size_t i = 0; i < completion.tokens.size(); ++i) {
    completion.logprobs.push_back(-0.125F * static_cast<float>(i + 1));
    completion.versions.push_back(7);
  }
  co_return completion;
}

std::string call_text(const std::string& name, const std::string& arguments) {
  return "<tool_call>\n{\"name\": \"" + name + "\", \"arguments\": " + arguments +
         "}\n</tool_call>";
}

LoopbackReply tool_output(const LoopbackRequest& request, const nlohmann::json& output) {
  const auto call = nlohmann::json::parse(request.body);
  return {.body = nlohmann::json{{"type", "function_call_output"},
                                 {"id", call["id"]},
                                 {"call_id", call["call_id"]},
                                 {"output", output}}
                      .dump()};
}

LoopbackReply answer(int status, const std::string& body) {
  return {.status = status, .body = body};
}

RolloutTest::RolloutTest()
    : tokenizer(kFixtureModel / "tokenizer.json"),
      format(make_chat_format(kFixtureModel, tokenizer)),
      policy(tokenizer, format->stop_ids().front()),
      tool([](const LoopbackRequest& r) { return tool_output(r, "result"); }),
      grader([](const LoopbackRequest&) { return answer(200, R"({"score":0.75})"); }),
      server(
          [this](const LoopbackRequest& r) { return r.path == "/grade" ? grader(r) : tool(r); }) {
  policy.script = {"Hello."};
  task.item = R"({"messages":[{"role":"user","content":"Hi"}],  "reference": 1.50})";
  task.messages = R"([{"role":"user","content":"Hi"}])";
  task.tools = R"([{"type":"function","function":{"name":"get","description":"","parameters":{}}},
                   {"type":"function","function":{"name":"submit","description":"","parameters":{}}}])";
  ToolOptions get;
  get.name = "get";
  get.url = server.url("/call");
  get.timeout = std::chrono::milliseconds(3000);
  tools.push_back(get);
  grading.url = server.url("/grade");
  grading.timeout = std::chrono::milliseconds(3000);
  assignment = {
      .step = 4, .group = 9, .member = 2, .attempt = 0, .task_row = 0, .seed = 11, .version = 7};
}

std::vector<Trajectory> RolloutTest::run_many(int count) {
  Environment environment(client, tools, grading, "job-1",
                          {std::chrono::milliseconds(1), std::chrono::milliseconds(4)});
  const RolloutContext context{policy, environment, *format, tokenizer, options};
  std::vector<Trajectory> trajectories(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i)
    asio::co_spawn(loop, run_rollout(assignment, task, context),
                   [&trajectories, i](std::exception_ptr thrown, Trajectory t) {
                     if (thrown) std::rethrow_exception(thrown);
                     trajectories[static_cast<std::size_t>(i)] = std::move(t);
                   });
  loop.restart();
  loop.run();
  return trajectories;
}

Trajectory RolloutTest::run() { return run_many(1).front(); }

std::vector<LoopbackRequest> RolloutTest::requests_to(const std::string& path) const {
  auto all = server.requests();
  std::erase_if(all, [&path](const LoopbackRequest& r) { return r.path != path; });
  return all;
}

}  // namespace rollcall
