// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "rollout_workers/http_client.h"

namespace rollcall {

// The HTTP thread behind HttpClient: libcurl transfers driven by one epoll. start() and cancel()
// are thread-safe.
class HttpLoop {
 public:
  struct Ended {
    std::uint64_t id;
    HttpReply reply;
  };

  // `done` is called on the HTTP thread with the requests that ended together; each that was
  // started and is not cancelled comes once.
  using Done = std::function<void(std::vector<Ended>)>;
  explicit HttpLoop(Done done);
  ~HttpLoop();  // drops what is in flight and joins the thread
  HttpLoop(const HttpLoop&) = delete;
  HttpLoop& operator=(const HttpLoop&) = delete;

  void start(std::uint64_t id, HttpRequest request);
  void cancel(std::uint64_t id);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rollcall
