// SPDX-License-Identifier: Apache-2.0
// Whatever a server writes into its connection, the client gives back a reply or an error, within
// its bounds.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "rollout_workers/cookie_jar.h"
#include "rollout_workers/http_client.h"
#include "rollout_workers/retry_delay.h"
#include "rollout_workers/tool_reply.h"
#include "tests/fuzz/fuzz.h"

namespace rollcall {
namespace {

constexpr std::int64_t kMaxReply = 10000;

// Answers each connection with the same bytes and closes it.
class Server {
 public:
  Server() : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    ::setenv("no_proxy", "127.0.0.1", 1);
    sockaddr_in own{};
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof own;
    auto* generic = reinterpret_cast<sockaddr*>(&own);
    if (::bind(listener_, generic, size) != 0 || ::listen(listener_, 16) != 0) std::abort();
    ::getsockname(listener_, generic, &size);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(own.sin_port)) + "/";
    std::thread([this] { serve(); }).detach();
  }
  const std::string& url() const { return url_; }
  void answer_with(std::string_view bytes) {
    const std::lock_guard hold(mutex_);
    bytes_ = bytes;
  }

 private:
  void serve() {
    for (;;) {
      const int connection = ::accept(listener_, nullptr, nullptr);
      std::string request;
      std::array<char, 4096> part;
      ssize_t got = 1;
      while (got > 0 && !request.ends_with("\r\n\r\n{}")) {
        got = ::recv(connection, part.data(), part.size(), 0);
        if (got > 0) request.append(part.data(), static_cast<std::size_t>(got));
      }
      std::string reply;
      {
        const std::lock_guard hold(mutex_);
        reply = bytes_;
      }
      ::send(connection, reply.data(), reply.size(), MSG_NOSIGNAL);
      ::close(connection);
    }
  }

  int listener_;
  std::string url_;
  std::mutex mutex_;
  std::string bytes_;
};

struct Browser {
  asio::io_context loop;
  HttpClient client{loop.get_executor()};

  HttpReply post(const std::string& url) {
    HttpReply reply;
    HttpRequest request;
    request.url = url;
    request.body = "{}";
    request.timeout = std::chrono::seconds(5);
    request.max_reply_bytes = kMaxReply;
    asio::co_spawn(loop, client.post(std::move(request)),
                   [&](std::exception_ptr, HttpReply r) { reply = std::move(r); });
    loop.restart();
    loop.run();
    return reply;
  }
};

void check(const HttpReply& reply) {
  if ((reply.status == 0) == reply.error.empty()) __builtin_trap();
  if (reply.body.size() > kMaxReply || reply.timed_out) __builtin_trap();
}

}  // namespace
}  // namespace rollcall

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace rollcall;
  static auto* server = new Server;  // its thread never ends
  static Browser browser;
  server->answer_with(text_of(data, size));
  const HttpReply reply = browser.post(server->url());
  check(reply);
  CookieJar jar;
  const auto now = std::chrono::system_clock::now();
  jar.store(server->url(), reply.headers, now);
  jar.header_for(server->url(), now);
  retry_after(reply, now);
  read_tool_reply(reply.body, "call_1");
  return 0;
}
