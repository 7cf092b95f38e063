// SPDX-License-Identifier: Apache-2.0
// Hands weights from a learner to workers on one host, through the memory that they share and by an
// MPI broadcast, turn by turn: weights_benchmark [MIB [WORKERS [ROUNDS]]]. A line of JSON, seconds
// as [median, lowest, highest]: until every worker has them where it computes with them. In shared
// memory that is where the learner has put them, on a machine of one memory node; else, and by a
// broadcast, each worker has a copy.
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>
#include <vector>

#include "benchmarks/benchmark.h"
#include "comms/communicator.h"
#include "comms/rollout_link.h"
#include "comms/world.h"

namespace rollcall {
namespace {

struct Arguments {
  std::size_t bytes;
  int workers, rounds;
};

ClusterOptions options_for(int workers) {
  ClusterOptions options;
  options.workers = workers;
  options.worker_timeout = std::chrono::hours(1);
  return options;
}

constexpr int kSlots = 2;

// As the learner packs: by all cores.
void copy_by_cores(std::string_view from, std::byte* to) {
  const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
  const std::size_t part = from.size() / cores + 1;
  std::vector<std::jthread> threads;
  for (std::size_t first = 0; first < from.size(); first += part)
    threads.emplace_back([=] {
      const std::string_view own = from.substr(first, part);
      std::memcpy(to + first, own.data(), own.size());
    });
}

void lead(World& world, Communicator& all, const Arguments& a) {
  RolloutServer server(world, options_for(a.workers), a.bytes);
  const std::string weights(a.bytes, 'w');
  std::string sent = weights;
  std::vector<double> shared, broadcast, ratios;
  for (int round = 0; round < a.rounds + kSlots; ++round) {
    all.barrier();
    const double by_memory = seconds_of([&] {
      server.publish(round, [&](std::span<std::byte> out) { copy_by_cores(weights, out.data()); });
      for (const WorkerStatus& worker : server.workers())
        while (server.workers()[static_cast<std::size_t>(worker.rank - 1)].weights_version < round)
          server.poll();
    });
    all.barrier();
    const double by_mpi = seconds_of([&] {
      all.broadcast(sent);
      all.barrier();
    });
    if (round < kSlots) continue;  // touches the memory of each slot first
    shared.push_back(by_memory);
    broadcast.push_back(by_mpi);
    ratios.push_back(by_mpi / by_memory);
  }
  const nlohmann::ordered_json line{{"bench", "weights"},
                                    {"mib", a.bytes >> 20},
                                    {"workers", a.workers},
                                    {"shared_s", listed(spread(shared))},
                                    {"broadcast_s", listed(spread(broadcast))},
                                    {"ratio", listed(spread(ratios))}};
  print_line(line.dump());
  all.barrier();
  server.shut_down(std::chrono::seconds(5));
}

void work(World& world, Communicator& all, const Arguments& a) {
  RolloutClient client(world, options_for(a.workers), a.bytes);
  std::string received(a.bytes, ' ');
  for (int round = 0; round < a.rounds + kSlots; ++round) {
    all.barrier();
    while (client.newest_version() < round) client.poll();
    client.load_weights(
        [](std::int64_t, std::span<const std::byte>) { return WeightsUse::kInPlace; });
    do client.poll();
    while (!client.idle());
    all.barrier();
    all.broadcast(received);
    all.barrier();
  }
  all.barrier();
  while (!client.poll().leave) {
  }
}

int run(int argc, char** argv) {
  const auto argument = [&](int i, int otherwise) {
    return argc > i ? std::atoi(argv[i]) : otherwise;
  };
  const Arguments a{static_cast<std::size_t>(argument(1, 512)) << 20, argument(2, 4),
                    argument(3, 5)};
  if (!under_launcher()) return run_under_mpirun(a.workers + 1, 1, argc, argv).code;
  World world(&argc, &argv);
  const auto all = make_mpi_communicator(world, world.size());
  world.rank() == 0 ? lead(world, *all, a) : work(world, *all, a);
  world.finish(ExitCode::kDone);
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
