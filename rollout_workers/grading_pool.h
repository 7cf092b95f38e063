// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "model/chat_format.h"
#include "model/tokenizer.h"
#include "rollout_workers/environment.h"
#include "rollout_workers/http_client.h"
#include "rollout_workers/rollout_options.h"

namespace rollcall {

// What it takes to ask a grader about rollouts that no worker runs: single thread.
struct GradingPool {
  GradingPool(const std::filesystem::path& model_dir, const ChatOptions& chat,
              const GraderOptions& grader, const std::string& job_id)
      : tokenizer(model_dir / "tokenizer.json"),
        format(make_chat_format(model_dir, tokenizer, chat)),
        http(loop.get_executor()),
        environment(http, {}, grader, job_id),
        most_at_once(grader.max_concurrency) {}

  // Starts `lane` as often as the grader takes requests at once and waits until all have ended. The
  // first exception ends the others too, and is thrown.
  void run(const std::function<asio::awaitable<void>()>& lane);

  Tokenizer tokenizer;
  std::unique_ptr<ChatFormat> format;
  asio::io_context loop;
  HttpClient http;
  Environment environment;
  int most_at_once;
};

}  // namespace rollcall
