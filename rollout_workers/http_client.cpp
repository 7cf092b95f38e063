// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/http_client.h"

#include <algorithm>
#include <asio/post.hpp>
#include <asio/this_coro.hpp>
#include <unordered_map>

#include "comms/fault_injection.h"
#include "rollout_workers/event.h"
#include "rollout_workers/http_loop.h"

namespace rollcall {
namespace {

// A coroutine that waits for its reply.
struct Waiting {
  explicit Waiting(const asio::any_io_executor& executor) : arrived(executor) {}
  HttpReply reply;
  Event arrived;
};

// Where replies are put down. Lives on the coroutines' thread only; shared with replies under way
// there, which may arrive after the client has gone.
struct Mailbox {
  std::unordered_map<std::uint64_t, Waiting*> waiting;
  std::uint64_t last_id = 0;

  void put(std::uint64_t id, HttpReply reply) {
    const auto found = waiting.find(id);
    if (found == waiting.end()) return;
    found->second->reply = std::move(reply);
    found->second->arrived.set();
    waiting.erase(found);
  }
};

}  // namespace

const std::string* find_header(const HttpReply& reply, std::string_view name) {
  const auto found = std::find_if(reply.headers.begin(), reply.headers.end(),
                                  [name](const auto& header) { return header.first == name; });
  return found == reply.headers.end() ? nullptr : &found->second;
}

struct HttpClient::Impl {
  explicit Impl(const asio::any_io_executor& executor)
      : loop([executor, mailbox = mailbox](std::vector<HttpLoop::Ended> ended) {
          asio::post(executor, [mailbox, ended = std::move(ended)]() mutable {
            for (auto& [id, reply] : ended) mailbox->put(id, std::move(reply));
          });
        }) {}

  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
  HttpLoop loop;
};

HttpClient::HttpClient(asio::any_io_executor executor)
    : impl_(std::make_unique<Impl>(std::move(executor))) {}

HttpClient::~HttpClient() {
  HttpReply closed;
  closed.error = "the HTTP client was closed";
  const auto waiting = std::exchange(impl_->mailbox->waiting, {});
  for (const auto& [id, waiter] : waiting) {
    waiter->reply = closed;
    waiter->arrived.set();
  }
}

asio::awaitable<HttpReply> HttpClient::post(HttpRequest request) {
  if (fault_point("connect") == Fault::kFail) {
    HttpReply refused;
    refused.error = "connection refused (injected)";
    co_return refused;
  }
  const auto executor = co_await asio::this_coro::executor;
  Waiting waiting(executor);
  // Takes the request back when the coroutine is cancelled or destroyed before the reply is there.
  struct Registration {
    std::shared_ptr<Mailbox> mailbox;
    HttpLoop& loop;
    std::uint64_t id;
    ~Registration() {
      if (mailbox->waiting.erase(id) != 0) loop.cancel(id);
    }
  };
  const Registration registration{impl_->mailbox, impl_->loop, ++impl_->mailbox->last_id};
  impl_->mailbox->waiting.emplace(registration.id, &waiting);
  impl_->loop.start(registration.id, std::move(request));
  co_await waiting.arrived.wait();
  co_return std::move(waiting.reply);
}

}  // namespace rollcall
