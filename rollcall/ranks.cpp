// SPDX-License-Identifier: Apache-2.0
#include "rollcall/ranks.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>
#include <thread>

#include "comms/log.h"
#include "comms/rollout_link.h"
#include "comms/stop_signal.h"
#include "comms/world.h"
#include "rollcall/run_setup.h"
#include "rollcall/version.h"

namespace rollcall {
namespace {

void require_rank_count(const RunConfig& config, const World& world) {
  const int wanted = config.cluster.learners + config.cluster.workers;
  if (world.size() == wanted) return;
  throw input_error(
      "the launcher started " + std::to_string(world.size()) + " ranks, the run file asks for " +
          std::to_string(wanted) + " (cluster.learners + cluster.workers)",
      "start as many ranks as the run file asks for, or change cluster.workers with --set");
}

// Ends this worker. A warning is for its log file alone: the lead learner tells the person.
[[noreturn]] void fail_alone(World& world, const Error& error) {
  log_warning(std::string("this worker failed: ") + error.what());
  if (!error.what_to_do().empty()) log_warning("what to do: " + error.what_to_do());
  leave_with_failure(world, error);
  world.finish(error.exit_code());
}

// Ends the job because of an error on this rank, if it is a learner.
[[noreturn]] void fail(const RunConfig& config, World& world, const Error& error) {
  if (world.rank() >= config.cluster.learners) fail_alone(world, error);
  log_error(error.what());
  if (!error.what_to_do().empty()) log_error("what to do: " + error.what_to_do());
  log_flush();
  world.abort(error.exit_code(), error.what());
}

void open_log(const RunConfig& config, const World& world) {
  const auto logs = run_directory(config) / "log";
  std::filesystem::create_directories(logs);
  log_open(world.rank(), logs / ("rank-" + std::to_string(world.rank()) + ".log"),
           world.rank() == 0);
}

void log_start(const RunConfig& config, const World& world) {
  const int rank = world.rank();
  log_debug(fmt::format("{} of {} on {}, process {}, rollcall {}, seed {}",
                        rank == 0                        ? "lead learner"
                        : rank < config.cluster.learners ? "learner"
                                                         : "rollout worker",
                        config.run.name, world.host(), ::getpid(), kVersion, config.run.seed));
}

}  // namespace

JobEnd start_ranks(const ClusterOptions& cluster, const RunArguments& arguments,
                   const StopClock* clock) {
  // The ranks write into mpirun's pipes: only here can be seen whether a person watches.
  if (::isatty(STDERR_FILENO) == 1) ::setenv("ROLLCALL_LIVE_PROGRESS", "1", 1);
  // Ranks share cores: a thread that spins while it waits would take the core another rank needs.
  ::setenv("OMP_WAIT_POLICY", "passive", 0);
  return run_under_mpirun(cluster.learners + cluster.workers, cluster.learners, arguments.argc,
                          arguments.argv, clock);
}

void use_threads(int threads) { at::set_num_threads(threads); }

int learner_threads(int learners) {
  if (const char* set = std::getenv("OMP_NUM_THREADS"); set != nullptr && std::atoi(set) > 0)
    return std::atoi(set);
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / learners);
}

int run_rank(const RunConfig& config,
             const std::function<ExitCode(World&, const StopSignal&)>& body, RankLog log) {
  int argc = 0;
  char** argv = nullptr;
  World world(&argc, &argv);
  const StopSignal stop;
  try {
    require_rank_count(config, world);
    if (log == RankLog::kFile) open_log(config, world);
    log_start(config, world);
    const ExitCode code = body(world, stop);
    log_debug("left with code " + std::to_string(static_cast<int>(code)));
    world.finish(code);
  } catch (const Error& error) {
    fail(config, world, error);
  } catch (const std::exception& error) {
    fail(config, world,
         Error(std::string("unexpected: ") + error.what(),
               "this is a bug in rollcall: please report it with the log"));
  }
}

}  // namespace rollcall
