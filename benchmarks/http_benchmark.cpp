// SPDX-License-Identifier: Apache-2.0
// Requests of so many rollouts at once to a server that answers each after a delay:
// http_benchmark [IN_FLIGHT [DELAY_MS [ROUNDS [REPEATS]]]]. The server is a process of its own on
// this host. A line of JSON, numbers as [median, lowest, highest]: the time that the replies would
// take if only the server needed any, over the time they took, and the CPU time of a request on the
// client's side, both its threads together.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "benchmarks/benchmark.h"
#include "comms/error.h"
#include "rollout_workers/http_client.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::string_view kReply =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n"
    "{\"output\": \"three invoices\"}";
constexpr std::size_t kRequestBody = 400;  // bytes, as of a tool call with its context

int listen_on_any_port(int backlog) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd, backlog) != 0)
    throw Error("cannot listen on 127.0.0.1");
  return fd;
}

int port_of(int fd) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw Error("a socket has no port");
  return ntohs(address.sin_port);
}

// Answers every request after the delay. Knows of HTTP what this benchmark's requests need: a
// request is whole where its body of kRequestBody bytes ends.
class DelayServer {
 public:
  DelayServer(int listener, milliseconds delay)
      : listener_(listener), epoll_(::epoll_create1(0)), delay_(delay) {
    watch(listener_);
  }

  [[noreturn]] void run() {
    std::array<epoll_event, 512> ready{};
    for (;;) {
      const int count =
          ::epoll_wait(epoll_, ready.data(), static_cast<int>(ready.size()), wait_ms());
      for (int i = 0; i < count; ++i) {
        const int fd = ready[static_cast<std::size_t>(i)].data.fd;
        fd == listener_ ? accept_one() : receive(fd);
      }
      answer_due();
    }
  }

 private:
  void watch(int fd) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
  }

  void accept_one() {
    const int fd = ::accept(listener_, nullptr, nullptr);
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd >= static_cast<int>(received_.size()))
      received_.resize(static_cast<std::size_t>(fd) + 1);
    watch(fd);
  }

  void receive(int fd) {
    std::array<char, 4096> bytes{};
    const ssize_t size = ::read(fd, bytes.data(), bytes.size());
    std::string& text = received_[static_cast<std::size_t>(fd)];
    if (size <= 0) {
      text.clear();
      ::close(fd);
      return;
    }
    text.append(bytes.data(), static_cast<std::size_t>(size));
    const auto head = text.find("\r\n\r\n");
    if (head == std::string::npos || text.size() < head + 4 + kRequestBody) return;
    text.clear();
    due_.emplace_back(Clock::now() + delay_, fd);
  }

  int wait_ms() const {
    if (due_.empty()) return -1;
    const auto wait = std::chrono::ceil<milliseconds>(due_.front().first - Clock::now()).count();
    return static_cast<int>(std::max<std::int64_t>(0, wait));
  }

  void answer_due() {
    const auto now = Clock::now();
    for (; !due_.empty() && due_.front().first <= now; due_.pop_front())
      (void)!::write(due_.front().second, kReply.data(), kReply.size());
  }

  int listener_, epoll_;
  milliseconds delay_;
  std::vector<std::string> received_;  // by descriptor
  std::deque<std::pair<Clock::time_point, int>> due_;
};

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

asio::awaitable<void> rollout(HttpClient& http, const HttpRequest& request, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    const HttpReply reply = co_await http.post(request);
    if (reply.status != 200) throw Error("a request failed: " + reply.error);
  }
}

void all_rollouts(asio::io_context& loop, HttpClient& http, const HttpRequest& request,
                  int in_flight, int rounds) {
  std::exception_ptr failure;
  for (int i = 0; i < in_flight; ++i)
    asio::co_spawn(loop, rollout(http, request, rounds), [&](const std::exception_ptr& error) {
      if (error) failure = error;
    });
  loop.restart();
  loop.run();
  if (failure) std::rethrow_exception(failure);
}

int run(int argc, char** argv) {
  const auto argument = [&](int i, int otherwise) {
    return argc > i ? std::atoi(argv[i]) : otherwise;
  };
  const int in_flight = argument(1, 2000), rounds = argument(3, 20), repeats = argument(4, 5);
  const milliseconds delay(argument(2, 100));
  const int listener = listen_on_any_port(in_flight);
  const int port = port_of(listener);
  if (::fork() == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    DelayServer(listener, delay).run();
  }
  asio::io_context loop;
  HttpClient http(loop.get_executor());
  HttpRequest request;
  request.url = "http://127.0.0.1:" + std::to_string(port) + "/call";
  request.headers = {{"X-Rft-Job-Id", "benchmark"}, {"Authorization", "Bearer 0123456789abcdef"}};
  request.body.assign(kRequestBody, 'x');
  all_rollouts(loop, http, request, in_flight, 1);  // opens the connections
  std::vector<double> of_ideal, cpu;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const double cpu_before = cpu_seconds();
    const double seconds =
        seconds_of([&] { all_rollouts(loop, http, request, in_flight, rounds); });
    const double ideal = rounds * std::chrono::duration<double>(delay).count();
    of_ideal.push_back(ideal / seconds);
    cpu.push_back(1e6 * (cpu_seconds() - cpu_before) / (static_cast<double>(in_flight) * rounds));
  }
  const nlohmann::ordered_json line{{"bench", "http"},
                                    {"in_flight", in_flight},
                                    {"delay_ms", delay.count()},
                                    {"of_ideal", listed(spread(of_ideal))},
                                    {"cpu_us", listed(spread(cpu))}};
  print_line(line.dump());
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
