// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "loopback_server.h"
#include "model/tokenizer.h"
#include "rollout_workers/http_client.h"
#include "rollout_workers/rollout.h"

namespace rollcall {

// A policy that says what its script says, whatever it is told. Its tokens are single characters:
// never what the tokenizer would make of the same text.
class ScriptedPolicy : public Policy {
 public:
  ScriptedPolicy(const Tokenizer& tokenizer, std::int32_t stop_id)
      : tokenizer_(tokenizer), stop_id_(stop_id) {}

  std::unique_ptr<PolicySession> open(std::span<const std::int32_t> prompt,
                                      std::uint64_t seed) override;
  asio::awaitable<Completion> complete(PolicySession&, std::span<const std::int32_t> delta,
                                       const SamplingOptions&) override;
  std::vector<std::int32_t> spell(const std::string& text) const;

  std::vector<std::string> script;  // one text a turn; each session starts at the first
  bool context_full = false;        // the engine's own verdict on the first turn
  std::vector<std::vector<std::int32_t>> prompts, deltas;
  std::vector<std::uint64_t> seeds;

 private:
  const Tokenizer& tokenizer_;
  std::int32_t stop_id_;
};

std::string call_text(const std::string& name, const std::string& arguments);
// A tool server's reply to the call in `request`.
LoopbackReply tool_output(const LoopbackRequest& request, const nlohmann::json& output);
LoopbackReply answer(int status, const std::string& body = "{}");

// A handler that a test may change while the server, on threads of its own, still answers with it.
class ChangeableHandler {
 public:
  explicit ChangeableHandler(LoopbackServer::Handler handler) : handler_(std::move(handler)) {}

  ChangeableHandler& operator=(LoopbackServer::Handler handler) {
    const std::lock_guard lock(mutex_);
    handler_ = std::move(handler);
    return *this;
  }
  LoopbackReply operator()(const LoopbackRequest& request) const {
    std::unique_lock lock(mutex_);
    const LoopbackServer::Handler handler = handler_;
    lock.unlock();
    return handler(request);
  }

 private:
  mutable std::mutex mutex_;
  LoopbackServer::Handler handler_;
};

// One task, a tool server and a grader on this machine, and a policy that follows a script.
class RolloutTest : public testing::Test {
 protected:
  RolloutTest();

  Trajectory run();
  std::vector<Trajectory> run_many(int count);
  std::vector<LoopbackRequest> requests_to(const std::string& path) const;

  Tokenizer tokenizer;
  std::unique_ptr<ChatFormat> format;
  ScriptedPolicy policy;
  ChangeableHandler tool, grader;  // what the server does
  LoopbackServer server;
  asio::io_context loop;
  HttpClient client{loop.get_executor()};
  Task task;
  std::vector<ToolOptions> tools;
  GraderOptions grading;
  RolloutOptions options;
  Assignment assignment;
};

}  // namespace rollcall
