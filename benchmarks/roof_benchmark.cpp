// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, to be measured in the same run as what is held against it:
// roof_benchmark [THREADS]. A line of JSON for each, as [median, lowest, highest].
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <thread>

#include "benchmarks/benchmark.h"

namespace rollcall {
namespace {

constexpr int kRepetitions = 9;

template <class Work>
Spread rates(double amount, const Work& work) {
  work();
  std::vector<double> values;
  for (int i = 0; i < kRepetitions; ++i) values.push_back(amount / seconds_of(work));
  return spread(values);
}

void print(const char* roof, const char* unit, const Spread& s) {
  const nlohmann::ordered_json line{
      {"bench", "roof"}, {"roof", roof}, {"unit", unit}, {"rate", listed(s)}};
  print_line(line.dump());
}

void gemm(const char* name, at::ScalarType dtype) {
  constexpr std::int64_t n = 2048;
  const at::Tensor a = at::ones({n, n}, dtype), b = at::ones({n, n}, dtype);
  at::Tensor c = at::empty({n, n}, dtype);
  print(name, "GFLOP/s", rates(2e-9 * n * n * n, [&] { at::mm_out(c, a, b); }));
}

void memory() {
  const at::Tensor x = at::ones({256 << 20}, at::kFloat);
  const float* values = x.const_data_ptr<float>();
  std::vector<float> sums(static_cast<std::size_t>(at::get_num_threads()));
  print("memory read", "GB/s", rates(4e-9 * static_cast<double>(x.numel()), [&] {
          at::parallel_for(0, x.numel(), 1, [&](std::int64_t begin, std::int64_t end) {
            float lanes[64] = {};
            for (std::int64_t i = begin; i + 64 <= end; i += 64)
              for (int k = 0; k < 64; ++k) lanes[k] += values[i + k];
            for (const float lane : lanes)
              sums[static_cast<std::size_t>(at::get_thread_num())] += lane;
          });
        }));
}

void disk() {
  const std::vector<char> block(1 << 20, 'x');
  char name[] = "roof_benchmark.XXXXXX";
  const int file = mkstemp(name);
  if (file < 0) throw std::runtime_error("cannot write in the current folder");
  unlink(name);
  print("write(2)", "GB/s", rates(256 * 1.048576e-3, [&] {
          for (int i = 0; i < 256; ++i)
            if (pwrite(file, block.data(), block.size(), static_cast<off_t>(i) << 20) < 0)
              throw std::runtime_error("cannot write in the current folder");
        }));
  close(file);
}

// Of `size` bytes, as often as the other end sends so many.
void answer(int socket, std::size_t size, std::size_t reply) {
  std::vector<char> bytes(std::max(size, reply));
  while (::recv(socket, bytes.data(), size, MSG_WAITALL) == static_cast<ssize_t>(size))
    if (::send(socket, bytes.data(), reply, MSG_NOSIGNAL) != static_cast<ssize_t>(reply)) break;
}

double thread_cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// What a client that waits for each reply takes for a tool call over TCP: a send and a receive, of
// http_benchmark's sizes with their heads, and nothing else.
void loopback() {
  constexpr std::size_t kRequest = 600, kReply = 105;
  constexpr int kRequests = 5000;
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0),
            client = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* where = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener, where, size) != 0 || ::listen(listener, 1) != 0 ||
      ::getsockname(listener, where, &size) != 0 || ::connect(client, where, size) != 0)
    throw std::runtime_error("no connection to 127.0.0.1");
  const int server = ::accept(listener, nullptr, nullptr);
  std::thread other([server] { answer(server, kRequest, kReply); });
  const std::vector<char> request(kRequest, 'x');
  std::vector<char> reply(kReply);
  std::vector<double> cpu;
  for (int i = 0; i <= kRepetitions; ++i) {
    const double before = thread_cpu_seconds();
    for (int r = 0; r < kRequests; ++r)
      if (::send(client, request.data(), kRequest, MSG_NOSIGNAL) < 0 ||
          ::recv(client, reply.data(), kReply, MSG_WAITALL) < 0)
        throw std::runtime_error("the connection to 127.0.0.1 broke");
    if (i > 0) cpu.push_back(1e6 * (thread_cpu_seconds() - before) / kRequests);
  }
  for (const int socket : {client, listener}) ::close(socket);
  other.join();
  ::close(server);
  print("loopback request, the client's CPU", "us", spread(cpu));
}

int run(int argc, char** argv) {
  at::set_num_threads(argc > 1 ? std::max(1, std::atoi(argv[1])) : 2);
  gemm("matrix product, float32", at::kFloat);
  gemm("matrix product, bfloat16", at::kBFloat16);
  memory();
  disk();
  loopback();
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
