// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace rollcall {

struct LoopbackRequest {
  std::string method, path;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  int connection = 0;  // number of the TCP connection it came on

  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  }
};

struct LoopbackReply {
  enum class Way {
    kWhole,
    kClose,     // close the connection unanswered
    kTruncate,  // promise the whole body, send half, close
    kStall,     // never answer
    kDrip,      // a byte every few milliseconds, without end
    kRaw,       // send `body` as it is, not even HTTP, then `again` without end, and close
  };
  int status = 200;
  std::string body = {};
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::chrono::milliseconds delay{0};
  std::size_t once_seen = 0;  // answer when the server has seen that many requests, or after 10 s
  Way way = Way::kWhole;
  // Of kRaw:
  std::string again = {};
  std::chrono::milliseconds pause{0};  // behind each `again`
  bool hold = false;                   // leave closing to the client
};

// An HTTP/1.1 server on 127.0.0.1 that answers as told; keep-alive, one thread a connection.
class LoopbackServer {
 public:
  using Handler = std::function<LoopbackReply(const LoopbackRequest&)>;
  explicit LoopbackServer(Handler);  // called by one thread at a time
  ~LoopbackServer();
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  std::string url(const std::string& path) const;
  int port() const { return port_; }
  std::vector<LoopbackRequest> requests() const;
  int connections() const;
  int most_at_once() const;  // requests that were being answered at the same time

 private:
  void accept_loop();
  void serve(int fd, int connection);
  void wait_until_seen(std::size_t count) const;
  bool answer(int fd, const LoopbackReply&);

  Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  mutable std::mutex mutex_;  // guards what follows
  std::vector<LoopbackRequest> requests_;
  std::list<int> open_;
  std::list<std::thread> threads_;
  int connections_ = 0;
  int at_once_ = 0, most_at_once_ = 0;
  bool stopping_ = false;
  std::thread acceptor_;
};

}  // namespace rollcall
