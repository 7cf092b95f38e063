// SPDX-License-Identifier: Apache-2.0
#include "comms/lifeline.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>

#include "comms/error.h"
#include "comms/log.h"
#include "comms/split.h"

namespace rollcall {
namespace {

constexpr int kConnectMs = 3000;  // for each address
constexpr int kEventsAtOnce = 256, kRounds = 64;
constexpr std::size_t kLongestLine = std::size_t{64} << 10;
constexpr int kSilentSeconds = 10, kProbeSeconds = 5, kProbes = 6;

std::string random_token() {
  std::random_device source;
  std::ostringstream token;
  for (int i = 0; i < 4; ++i) token << std::hex << source();
  return token.str();
}

// IPv4 addresses by which other hosts may reach this one.
std::vector<std::string> own_addresses() {
  std::vector<std::string> found;
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return found;
  for (const ifaddrs* at = first; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET) continue;
    if ((at->ifa_flags & IFF_UP) == 0 || (at->ifa_flags & IFF_LOOPBACK) != 0) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    const auto* address = reinterpret_cast<const sockaddr_in*>(at->ifa_addr);
    ::inet_ntop(AF_INET, &address->sin_addr, text.data(), text.size());
    found.emplace_back(text.data());
  }
  ::freeifaddrs(first);
  found.emplace_back("127.0.0.1");  // last: elsewhere it leads nowhere
  return found;
}

int connect_to(const std::string& address, int port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  if (::inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) return -1;
  const int made = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return -1;
  int failure = 0;
  if (::connect(made, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    pollfd wait{made, POLLOUT, 0};
    socklen_t size = sizeof failure;
    int answers = 0;
    if (errno == EINPROGRESS)
      while ((answers = ::poll(&wait, 1, kConnectMs)) < 0 && errno == EINTR) {
      }
    if (answers != 1 || ::getsockopt(made, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
      failure = -1;
  }
  ::fcntl(made, F_SETFL, 0);
  if (failure == 0) return made;
  ::close(made);
  return -1;
}

// A host that lost power sends no end of its connections.
void probe_when_silent(int socket) {
  const auto set = [&](int level, int name, int value) {
    ::setsockopt(socket, level, name, &value, sizeof value);
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kSilentSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kProbeSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kProbes);
}

}  // namespace

Lifeline::Lifeline(int rank) {
  const char* variable = std::getenv(kLifelineVariable);
  if (variable == nullptr) return;
  const auto parts = split(variable, ':');  // token, port, addresses
  for (std::size_t i = 2; i < parts.size() && socket_ < 0; ++i) {
    socket_ = connect_to(std::string(parts[i]), std::atoi(std::string(parts[1]).c_str()));
  }
  if (socket_ >= 0) {
    say("hello " + std::string(parts[0]) + " " + std::to_string(rank));
  } else {
    log_warning("rank " + std::to_string(rank) +
                " cannot reach the process that started the run: if it dies, only timeouts tell");
  }
}

Lifeline::~Lifeline() {
  if (socket_ >= 0) ::close(socket_);
}

void Lifeline::say_ready() const { say("ready"); }

void Lifeline::say_left(int code) const { say("left " + std::to_string(code)); }

void Lifeline::say_failed(int code, const std::string& message) const {
  std::string line = message.substr(0, kLongestLine / 2);
  std::ranges::replace(line, '\n', ' ');
  say("failed " + std::to_string(code) + " " + line);
}

void Lifeline::say(const std::string& line) const {
  const std::string bytes = line + "\n";
  std::size_t done = 0;
  while (connected() && done < bytes.size()) {
    const ssize_t size = ::send(socket_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (size <= 0 && errno != EINTR) return;  // the parent is gone: mpirun ends with it
    if (size > 0) done += static_cast<std::size_t>(size);
  }
}

LifelineHub::LifelineHub(bool one_host)
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
      one_host_(one_host),
      token_(random_token()) {
  sockaddr_in own{};
  own.sin_family = AF_INET;
  own.sin_addr.s_addr = htonl(one_host ? INADDR_LOOPBACK : INADDR_ANY);
  auto* generic = reinterpret_cast<sockaddr*>(&own);
  socklen_t size = sizeof own;
  if (::bind(listener_, generic, sizeof own) != 0 || ::listen(listener_, SOMAXCONN) != 0 ||
      ::getsockname(listener_, generic, &size) != 0) {
    throw Error(std::string("cannot listen for the ranks of the run: ") + std::strerror(errno),
                "a run needs IPv4 on the loopback interface");
  }
  watch(listener_);
  address_ = token_ + ":" + std::to_string(ntohs(own.sin_port));
  for (const auto& address : one_host ? std::vector<std::string>{"127.0.0.1"} : own_addresses()) {
    address_ += ":" + address;
  }
}

LifelineHub::~LifelineHub() {
  for (const auto& [socket, connection] : connections_) ::close(socket);
  if (listener_ >= 0) ::close(listener_);
  if (epoll_ >= 0) ::close(epoll_);
}

void LifelineHub::watch(int descriptor) const {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = descriptor;
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event);
}

std::vector<LifelineHub::RankEnd> LifelineHub::poll() {
  std::vector<RankEnd> ends;
  std::array<epoll_event, kEventsAtOnce> events;
  // Whoever floods the port must not keep the parent here.
  for (int round = 0; round < kRounds; ++round) {
    const int count = ::epoll_wait(epoll_, events.data(), kEventsAtOnce, 0);
    if (count <= 0) break;
    for (int i = 0; i < count; ++i) {
      const int socket = events[static_cast<std::size_t>(i)].data.fd;
      if (socket == listener_) {
        accept_some();
      } else if (connections_.contains(socket)) {
        hear(socket, ends);
      }
    }
  }
  return ends;
}

bool LifelineHub::any_rank(int first) const {
  return std::ranges::any_of(connections_, [&](const auto& c) { return c.second.rank >= first; });
}

void LifelineHub::accept_some() {
  for (int i = 0; i < kEventsAtOnce; ++i) {
    const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (socket < 0 && (errno == EMFILE || errno == ENFILE)) drop_strangers();
    if (socket < 0) return;
    if (!one_host_) probe_when_silent(socket);
    connections_[socket];
    watch(socket);
  }
}

void LifelineHub::drop_strangers() {
  std::erase_if(connections_, [](const auto& entry) {
    if (entry.second.rank < 0) ::close(entry.first);
    return entry.second.rank < 0;
  });
}

void LifelineHub::hear(int socket, std::vector<RankEnd>& ends) {
  Connection& connection = connections_.at(socket);
  std::array<char, 4096> bytes;
  const ssize_t size = ::recv(socket, bytes.data(), bytes.size(), 0);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  bool open = size > 0;
  if (open) connection.unread.append(bytes.data(), size);
  std::size_t end = 0;
  while (open && (end = connection.unread.find('\n')) != std::string::npos) {
    open = understand(connection, connection.unread.substr(0, end), ends);
    connection.unread.erase(0, end + 1);
  }
  if (size <= 0 && connection.rank >= 0) {
    ends.push_back({connection.rank, End::kDied, connection.ready, 0, {}});
  }
  if (open && connection.unread.size() < kLongestLine) return;
  ::close(socket);
  connections_.erase(socket);
}

bool LifelineHub::understand(Connection& connection, const std::string& line,
                             std::vector<RankEnd>& ends) const {
  std::istringstream in(line);
  std::string word;
  in >> word;
  if (connection.rank < 0) {
    std::string token;
    return word == "hello" && in >> token >> connection.rank && token == token_;
  }
  if (word == "ready") return connection.ready = true;
  RankEnd end{connection.rank, word == "left" ? End::kLeft : End::kFailed, connection.ready, 1, {}};
  in >> end.code >> std::ws;
  std::getline(in, end.message);
  ends.push_back(end);
  return false;
}

}  // namespace rollcall
