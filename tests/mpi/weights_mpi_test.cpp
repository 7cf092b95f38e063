// SPDX-License-Identifier: Apache-2.0
// Published weights arrive whole and in order, over shared memory and over messages, and leave
// nothing behind; workers notice the learner's death.
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <span>

#include "comms/process_watch.h"
#include "tests/mpi/fake_worker.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kWords = (9 << 20) / 4 + 3;  // two chunks, the second one uneven
constexpr std::size_t kBytes = kWords * sizeof(std::uint32_t);
constexpr int kVersions = 50;

using Weights = std::vector<std::uint32_t>;

Weights weights_of(std::int64_t version) {
  Weights weights(kWords);
  for (std::size_t i = 0; i < kWords; ++i) {
    weights[i] = static_cast<std::uint32_t>(version * 2654435761U + i);
  }
  return weights;
}

FillWeights filled_with(std::int64_t version) {
  return [version](std::span<std::byte> out) {
    std::memcpy(out.data(), weights_of(version).data(), out.size());
  };
}

bool leftovers() {
  return std::ranges::any_of(
      std::filesystem::directory_iterator("/dev/shm"),
      [](const auto& entry) { return entry.path().filename().string().starts_with("rollcall-"); });
}

// Does not wait for deliveries between versions: publications overtake the loading of older ones.
void publish_all(World& world, RolloutServer& server) {
  const int workers = world.size() - 1;
  std::vector<Trajectory> all;
  for (std::int64_t version = 0; version < kVersions; ++version) {
    server.publish(version, filled_with(version));
    for (int i = 0; i < workers; ++i) {
      server.submit({.group = version * workers + i, .version = version});
    }
    std::ranges::move(server.poll(), std::back_inserter(all));
  }
  std::ranges::move(collect_all(server), std::back_inserter(all));
  require(world, each_delivered_once(all, kVersions * workers), "each delivered once");
  for (const Trajectory& trajectory : all) {
    require(world, trajectory.token_version.at(0) >= trajectory.assignment.version,
            "an assignment's version is loadable when it arrives");
  }
}

void lead(World& world, const std::string& via) {
  RolloutServer server(world, test_options(world, via), kBytes);
  publish_all(world, server);
  bool refused = false;
  try {
    server.publish(kVersions - 1, filled_with(0));
  } catch (const Error&) {
    refused = true;
  }
  require(world, refused, "a version must grow");
  server.poll_for(milliseconds(50));
  for (const WorkerStatus& worker : server.workers()) {
    require(world, worker.weights_version >= 0, "workers confirm what they loaded");
  }
  require(world, !leftovers(), "nothing has a name in /dev/shm");
  require(world, server.shut_down(milliseconds(5000)) == world.size() - 1, "farewells");
  std::cout << "PASSED" << std::endl;
}

// Computes with the weights where they lie: they must stay what they are, whatever arrives.
void worker(World& world, const ClusterOptions& options) {
  RolloutClient client(world, options, kBytes);
  require(world, client.newest_version() == -1, "no version before the first");
  std::span<const std::byte> bytes;
  std::int64_t version = -1;
  const UseWeights use = [&](std::int64_t given, std::span<const std::byte> weights) {
    version = given;
    bytes = weights;
    return WeightsUse::kInPlace;
  };
  const auto require_intact = [&](const std::string& when) {
    const Weights wanted = weights_of(version);
    require(world, std::memcmp(bytes.data(), wanted.data(), bytes.size()) == 0,
            when + ", content of " + std::to_string(version));
  };
  serve(client, [&](const RolloutClient::Inbox& inbox) {
    require(world, client.give_way(use), "nobody overwrites what a live worker uses");
    for (const Assignment& assignment : inbox.assignments) {
      if (version >= 0) require_intact("in use");
      require(world, client.load_weights(use) == version, "the version that was given last");
      require_intact("taken up");
      Trajectory trajectory = echo(world, assignment);
      trajectory.tokens = {1};
      trajectory.is_action = {1};
      trajectory.behavior_logprobs = {0};
      trajectory.token_version = {static_cast<std::int32_t>(version)};
      client.deliver(trajectory);
    }
  });
}

constexpr int kStopped = 1;

// Takes weights up where they lie and is stopped, for so long that the lead learner gives it up.
void stopped_worker(World& world, const std::string& via) {
  RolloutClient client(world, test_options(world, via), kBytes);
  const UseWeights use = [](std::int64_t, std::span<const std::byte>) {
    return WeightsUse::kInPlace;
  };
  RolloutClient::Inbox inbox;
  while (inbox.assignments.empty()) inbox = client.poll();
  client.load_weights(use);
  Trajectory trajectory = echo(world, inbox.assignments.front());
  trajectory.fault_detail = std::to_string(::getpid());
  client.deliver(trajectory);
  while (!client.idle()) client.poll();
  ::raise(SIGSTOP);
  require(world, !client.give_way(use), "a worker learns that its weights were overwritten");
  require(world, client.poll().leave, "and leaves");
}

// Publishing waits for a worker that uses the memory as long as it may live, and no longer.
void overtaking_lead(World& world, const std::string& via) {
  RolloutServer server(world, test_options(world, via), kBytes);
  server.publish(0, filled_with(0));
  int process = 0;
  for (std::int64_t group = 0; process == 0; ++group) {
    server.submit({.group = group});
    for (const Trajectory& trajectory : server.poll_for(milliseconds(50)))
      if (trajectory.worker == kStopped) process = std::stoi(trajectory.fault_detail);
  }
  ProcessWatch stopped(process);
  server.publish(1, filled_with(1));
  require(world, server.workers().at(0).alive, "the other slot is free");
  server.publish(2, filled_with(2));
  require(world, !server.workers().at(0).alive, "it was given up");
  ::kill(process, SIGCONT);
  while (!stopped.ended()) server.poll_for(milliseconds(5));
  collect_all(server);
  require(world, server.shut_down(milliseconds(5000)) == world.size() - 2, "farewells");
  std::cout << "PASSED" << std::endl;
}

void dying_lead(World& world, const std::string& via) {
  RolloutServer server(world, test_options(world, via), kBytes);
  server.publish(0, filled_with(0));
  for (std::int64_t group = 0; group < 20; ++group) server.submit({.group = group});
  server.poll_for(milliseconds(1000));
  ::raise(SIGKILL);
}

void orphan(World& world, const std::string& via) {
  ClusterOptions options = test_options(world, via);
  // Shared memory tells who the learner is, and its end is seen at once; else silence must do.
  if (via == "mpi") options.learner_timeout = milliseconds(1500);
  worker(world, options);
  require(world, !leftovers(), "nothing is left in /dev/shm");
  std::cout << "PASSED: worker " + std::to_string(world.rank()) + " left by itself\n" << std::flush;
}

void test(World& world, const std::string& mode) {
  const bool leads = world.rank() == 0;
  const std::string via = mode.substr(mode.find('-') + 1);
  if (mode.starts_with("overtaken")) {
    if (leads) return overtaking_lead(world, via);
    world.rank() == kStopped ? stopped_worker(world, via) : worker(world, test_options(world, via));
  } else if (mode.starts_with("orphan")) {
    leads ? dying_lead(world, via) : orphan(world, via);
  } else {
    leads ? lead(world, via) : worker(world, test_options(world, via));
  }
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::run_mpi_test(argc, argv, rollcall::test); }
