// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/endpoint_check.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <thread>

#include "comms/error.h"

namespace rollcall {
namespace {

struct HostPort {
  std::string host, port;
};

HostPort host_and_port(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
  std::string authority = url.substr(begin, url.find_first_of("/?#", begin) - begin);
  if (const auto at = authority.rfind('@'); at != std::string::npos) authority.erase(0, at + 1);
  const std::string usual = url.rfind("https", 0) == 0 ? "443" : "80";
  const std::size_t colon = authority.rfind(':');
  const bool has_port =
      colon != std::string::npos && authority.find(']', colon) == std::string::npos;
  std::string host = has_port ? authority.substr(0, colon) : authority;
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return {host, has_port ? authority.substr(colon + 1) : usual};
}

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

// Empty if a connection came about within a second, else why not.
std::string try_address(const addrinfo& address) {
  const Socket socket(::socket(
      address.ai_family, address.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, address.ai_protocol));
  if (socket.fd() < 0) return std::strerror(errno);
  if (::connect(socket.fd(), address.ai_addr, address.ai_addrlen) == 0) return {};
  if (errno != EINPROGRESS) return std::strerror(errno);
  pollfd writable{socket.fd(), POLLOUT, 0};
  if (::poll(&writable, 1, 1000) <= 0) return "no answer";
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0 ? std::string() : std::strerror(error);
}

std::string try_connect(const HostPort& target) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = ::getaddrinfo(target.host.c_str(), target.port.c_str(), &hints, &found);
      code != 0)
    return ::gai_strerror(code);
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  std::string reason = "no address";
  for (const addrinfo* a = found; a != nullptr; a = a->ai_next) {
    reason = try_address(*a);
    if (reason.empty()) return reason;
  }
  return reason;
}

void wait_for(const EndpointAddress& endpoint, std::chrono::steady_clock::time_point deadline) {
  const HostPort target = host_and_port(endpoint.url);
  for (;;) {
    const std::string reason = try_connect(target);
    if (reason.empty()) return;
    if (std::chrono::steady_clock::now() >= deadline)
      throw Error("cannot reach " + endpoint.what + " at " + endpoint.url + ": " + reason,
                  "start the server, or correct the url in the run file, and start again",
                  ExitCode::kNoEndpoint);
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
  }
}

}  // namespace

std::vector<EndpointAddress> distinct_endpoints(std::span<const ToolOptions> tools,
                                                const GraderOptions& grader) {
  std::vector<EndpointAddress> endpoints;
  std::set<std::string> seen;
  const auto once = [&](const std::string& what, const std::string& url) {
    const HostPort target = host_and_port(url);
    if (seen.insert(target.host + " " + target.port).second) endpoints.push_back({what, url});
  };
  for (const auto& tool : tools) once("tool '" + tool.name + "'", tool.url);
  if (grader.type == "endpoint") once("the grader", grader.url);
  if (!grader.second.url.empty()) once("the second grader", grader.second.url);
  return endpoints;
}

std::string try_endpoint(const std::string& url) { return try_connect(host_and_port(url)); }

bool is_loopback(const std::string& url) {
  const std::string host = host_and_port(url).host;
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

void wait_for_endpoints(std::span<const ToolOptions> tools, const GraderOptions& grader,
                        std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (const EndpointAddress& endpoint : distinct_endpoints(tools, grader))
    wait_for(endpoint, deadline);
}

}  // namespace rollcall
