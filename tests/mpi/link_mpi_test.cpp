// SPDX-License-Identifier: Apache-2.0
// Work goes out and comes back exactly once, whatever happens to a worker.
#include <signal.h>
#include <unistd.h>

#include "comms/process_watch.h"
#include "tests/mpi/fake_worker.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;

constexpr std::int64_t kRollouts = 400;
constexpr int kUnluckyRank = 1;

// Every tenth is a few megabytes, which MPI sends by another protocol than small ones.
Trajectory answer(const World& world, const Assignment& assignment) {
  Trajectory trajectory = echo(world, assignment);
  trajectory.final_text.assign(assignment.group % 10 == 0 ? 3 << 20 : 100, 'x');
  trajectory.fault_detail = std::to_string(::getpid());
  return trajectory;
}

void submit_all(RolloutServer& server) {
  for (std::int64_t group = 0; group < kRollouts; ++group) server.submit({.group = group});
}

void finish_run(World& world, RolloutServer& server) {
  const auto alive = std::ranges::count_if(server.workers(), &WorkerStatus::alive);
  require(world, server.shut_down(milliseconds(5000)) == alive, "all live workers say farewell");
  std::cout << "PASSED" << std::endl;
}

void echo_lead(World& world) {
  RolloutServer server(world, test_options(world), 0);
  submit_all(server);
  const std::vector<Trajectory> all = collect_all(server);
  require(world, each_delivered_once(all, kRollouts), "each delivered once");
  finish_run(world, server);
}

void echo_worker(World& world) {
  RolloutClient client(world, test_options(world), 0);
  serve(client, [&](const RolloutClient::Inbox& inbox) {
    for (const Assignment& assignment : inbox.assignments) {
      client.deliver(answer(world, assignment));
      client.deliver(answer(world, assignment));  // a duplicate: must be dropped
    }
  });
}

// The unlucky worker answers some, then raises `signal_number` with work in its hands.
void unlucky_worker(World& world, int signal_number) {
  RolloutClient client(world, test_options(world), 0);
  int answered = 0;
  serve(client, [&](const RolloutClient::Inbox& inbox) {
    for (const Assignment& assignment : inbox.assignments) {
      if (world.rank() == kUnluckyRank && ++answered == 20) ::raise(signal_number);
      client.deliver(answer(world, assignment));
    }
  });
}

// Returns the process id that the unlucky worker told in its deliveries.
int check_loss(World& world, RolloutServer& server) {
  submit_all(server);
  const std::vector<Trajectory> all = collect_all(server);
  require(world, each_delivered_once(all, kRollouts), "each delivered once despite the loss");
  const auto again = std::ranges::count_if(
      all, [](const Trajectory& trajectory) { return trajectory.assignment.attempt == 1; });
  require(world, again >= 1 && again <= 8,
          "what the worker held was done again: " + std::to_string(again));
  const auto workers = server.workers();
  require(world, !workers[0].alive && workers[0].in_flight == 0 && workers[1].alive,
          "exactly the unlucky worker is dead");
  const auto by_unlucky = std::ranges::find(all, kUnluckyRank, &Trajectory::worker);
  require(world, by_unlucky != all.end(), "the unlucky worker had delivered before");
  return std::stoi(by_unlucky->fault_detail);
}

void lose_killed(World& world) {
  RolloutServer server(world, test_options(world), 0);
  check_loss(world, server);
  finish_run(world, server);
}

// A stopped worker counts as dead; woken up again it is told to leave and its late work is dropped.
void lose_stopped(World& world) {
  RolloutServer server(world, test_options(world), 0);
  const int process = check_loss(world, server);
  ProcessWatch unlucky(process);
  if (world.size() == 3) {
    ::kill(process, SIGKILL);
  } else {
    ::kill(process, SIGCONT);
  }
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!unlucky.ended() && std::chrono::steady_clock::now() < until) {
    require(world, server.poll_for(milliseconds(5)).empty(), "late deliveries are dropped");
  }
  require(world, unlucky.ended(), "the late worker leaves when told");
  finish_run(world, server);
}

void lose_all(World& world) {
  RolloutServer server(world, test_options(world), 0);
  submit_all(server);
  try {
    for (;;) {
      for (const Trajectory& trajectory : server.poll_for(milliseconds(10))) {
        require(world, trajectory.fault == FaultReason::kNone, "nothing was lost three times");
      }
    }
  } catch (const Error& error) {
    require(world, error.exit_code() == ExitCode::kStopped, "no worker left is resumable");
    std::cout << "PASSED" << std::endl;
  }
}

// The unlucky worker answers some, then ends with an error, with work in its hands.
void failing_worker(World& world, ExitCode code) {
  try {
    RolloutClient client(world, test_options(world), 0);
    int answered = 0;
    serve(client, [&](const RolloutClient::Inbox& inbox) {
      for (const Assignment& assignment : inbox.assignments) {
        if (world.rank() == kUnluckyRank && ++answered == 20) throw Error("odd", "even it", code);
        client.deliver(answer(world, assignment));
      }
    });
  } catch (const Error& error) {
    leave_with_failure(world, error);
  }
}

// What every worker would meet too ends the run at once.
void hear_of_bad_input(World& world) {
  RolloutServer server(world, test_options(world), 0);
  submit_all(server);
  try {
    collect_all(server);
    require(world, false, "bad input ends the run");
  } catch (const Error& error) {
    require(world, error.exit_code() == ExitCode::kBadInput, "the worker's own exit code");
    require(world, error.what() == std::string("worker 1: odd"), error.what());
    require(world, error.what_to_do() == "even it", error.what_to_do());
    std::cout << "PASSED" << std::endl;
  }
}

void hear_of_all_failing(World& world) {
  RolloutServer server(world, test_options(world), 0);
  submit_all(server);
  try {
    collect_all(server);
    require(world, false, "no worker is left");
  } catch (const Error& error) {
    require(world, error.exit_code() == ExitCode::kStopped, "no worker left is resumable");
    require(world, std::string(error.what()).ends_with("worker 1: odd"), error.what());
    std::cout << "PASSED" << std::endl;
  }
}

void test(World& world, const std::string& mode) {
  const bool lead = world.rank() == 0;
  if (mode == "echo") {
    lead ? echo_lead(world) : echo_worker(world);
  } else if (mode == "killed") {
    lead ? lose_killed(world) : unlucky_worker(world, SIGKILL);
  } else if (mode == "stopped") {
    lead ? lose_stopped(world) : unlucky_worker(world, SIGSTOP);
  } else if (mode == "failed") {
    lead ? lose_killed(world) : failing_worker(world, ExitCode::kFailure);
  } else if (mode == "all_failed") {
    lead ? hear_of_all_failing(world) : failing_worker(world, ExitCode::kFailure);
  } else if (mode == "bad_input") {
    lead ? hear_of_bad_input(world) : failing_worker(world, ExitCode::kBadInput);
  } else {
    lead ? lose_all(world) : unlucky_worker(world, SIGKILL);
  }
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::run_mpi_test(argc, argv, rollcall::test); }
