// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rollcall {

struct HttpRequest {
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;                           // POSTed as application/json
  std::chrono::milliseconds timeout{600000};  // for all of it, redirects included
  std::int64_t max_reply_bytes = 1 << 20;
  std::string cookies;  // "a=b; c=d" of the trace's jar
};

struct HttpReply {
  int status = 0;     // 0: no reply (see error)
  std::string error;  // of the connection, timeout or transfer; empty if status != 0
  bool timed_out = false;
  bool unsent = false;     // no reply, and nothing of the request ever left: nobody acted on it
  bool too_large = false;  // the reply passed max_reply_bytes and was cut off
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
};

// The value of the first header of that (lower-case) name; null if there is none.
const std::string* find_header(const HttpReply&, std::string_view name);

// HTTP/1.1 client over libcurl multi on one thread of its own, keep-alive, any number of requests
// in flight (sharded over multi handles). post() may be awaited from any coroutine of `executor`,
// which must belong to one thread and outlive the client.
class HttpClient {
 public:
  explicit HttpClient(asio::any_io_executor executor);
  ~HttpClient();  // what is in flight gets a reply with an error
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Never throws for what the network does: that is a reply with an error. Follows 307/308 within
  // the same origin, at most 3. A cancelled caller throws std::system_error and the request is
  // dropped.
  asio::awaitable<HttpReply> post(HttpRequest request);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rollcall
