// SPDX-License-Identifier: Apache-2.0
#include "loopback_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>

namespace rollcall {
namespace {

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool receive_more(int fd, std::string& buffer) {
  char chunk[16384];
  const ssize_t got = ::recv(fd, chunk, sizeof chunk, 0);
  if (got <= 0) return false;
  buffer.append(chunk, static_cast<std::size_t>(got));
  return true;
}

LoopbackRequest parse_head(const std::string& head) {
  LoopbackRequest request;
  request.method = head.substr(0, head.find(' '));
  const auto path = head.find(' ') + 1;
  request.path = head.substr(path, head.find(' ', path) - path);
  for (auto at = head.find("\r\n"); at != std::string::npos && at + 2 < head.size();) {
    const auto end = std::min(head.find("\r\n", at + 2), head.size());
    const std::string line = head.substr(at + 2, end - at - 2);
    const auto colon = line.find(':');
    std::string name = line.substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto value = line.find_first_not_of(' ', colon + 1);
    request.headers[name] = value == std::string::npos ? "" : line.substr(value);
    at = end == head.size() ? std::string::npos : end;
  }
  return request;
}

std::optional<LoopbackRequest> receive(int fd, std::string& buffer) {
  std::size_t end = 0;
  while ((end = buffer.find("\r\n\r\n")) == std::string::npos) {
    if (!receive_more(fd, buffer)) return std::nullopt;
  }
  LoopbackRequest request = parse_head(buffer.substr(0, end));
  buffer.erase(0, end + 4);
  const auto length =
      static_cast<std::size_t>(std::atoll(request.header("content-length").c_str()));
  while (buffer.size() < length) {
    if (!receive_more(fd, buffer)) return std::nullopt;
  }
  request.body = buffer.substr(0, length);
  buffer.erase(0, length);
  return request;
}

std::string head_of(const LoopbackReply& reply) {
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " X\r\n";
  for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
  return head + "Content-Length: " + std::to_string(reply.body.size()) + "\r\n\r\n";
}

}  // namespace

LoopbackServer::LoopbackServer(Handler handler) : handler_(std::move(handler)) {
  ::setenv("no_proxy", "127.0.0.1,localhost", 1);
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::listen(listener_, 1024) != 0)
    std::abort();
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { accept_loop(); });
}

LoopbackServer::~LoopbackServer() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
  }
  ::shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  for (auto& thread : threads_) thread.join();
  ::close(listener_);
}

std::string LoopbackServer::url(const std::string& path) const {
  return "http://127.0.0.1:" + std::to_string(port_) + path;
}

std::vector<LoopbackRequest> LoopbackServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

int LoopbackServer::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}

int LoopbackServer::most_at_once() const {
  const std::lock_guard lock(mutex_);
  return most_at_once_;
}

void LoopbackServer::accept_loop() {
  for (;;) {
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const std::lock_guard lock(mutex_);
    if (stopping_) {
      ::close(fd);
      return;
    }
    open_.push_back(fd);
    threads_.emplace_back([this, fd, number = connections_++] { serve(fd, number); });
  }
}

void LoopbackServer::serve(int fd, int connection) {
  std::string buffer;
  for (bool go_on = true; go_on;) {
    auto request = receive(fd, buffer);
    if (!request) break;
    request->connection = connection;
    LoopbackReply reply;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(*request);
      most_at_once_ = std::max(most_at_once_, ++at_once_);
      reply = handler_(*request);
    }
    std::this_thread::sleep_for(reply.delay);
    wait_until_seen(reply.once_seen);
    {
      const std::lock_guard lock(mutex_);
      --at_once_;
    }
    go_on = answer(fd, reply);
  }
  const std::lock_guard lock(mutex_);
  open_.remove(fd);
  ::close(fd);
}

void LoopbackServer::wait_until_seen(std::size_t count) const {
  for (int i = 0; i < 10000; ++i) {
    {
      const std::lock_guard lock(mutex_);
      if (requests_.size() >= count || stopping_) return;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

bool LoopbackServer::answer(int fd, const LoopbackReply& reply) {
  std::string rest;
  switch (reply.way) {
    case LoopbackReply::Way::kWhole:
      return send_all(fd, head_of(reply) + reply.body);
    case LoopbackReply::Way::kClose:
      return false;
    case LoopbackReply::Way::kTruncate:
      send_all(fd, head_of(reply) + reply.body.substr(0, reply.body.size() / 2));
      return false;
    case LoopbackReply::Way::kStall:
      while (receive_more(fd, rest)) rest.clear();
      return false;
    case LoopbackReply::Way::kDrip:
      send_all(fd, "HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n");
      while (send_all(fd, " ")) std::this_thread::sleep_for(std::chrono::milliseconds(3));
      return false;
    case LoopbackReply::Way::kRaw:
      send_all(fd, reply.body);
      while (!reply.again.empty() && send_all(fd, reply.again))
        std::this_thread::sleep_for(reply.pause);
      while (reply.hold && receive_more(fd, rest)) rest.clear();
      return false;
  }
  return false;
}

}  // namespace rollcall
