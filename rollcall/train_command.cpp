// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>
#include <optional>

#include "comms/communicator.h"
#include "comms/error.h"
#include "comms/file_lock.h"
#include "comms/log.h"
#include "comms/rollout_link.h"
#include "comms/slurm_job.h"
#include "comms/stop_clock.h"
#include "comms/stop_signal.h"
#include "comms/world.h"
#include "model/model_spec.h"
#include "model/published_weights.h"
#include "rollcall/commands.h"
#include "rollcall/ranks.h"
#include "rollcall/requeue.h"
#include "rollcall/run_setup.h"
#include "rollcall/worker_rank.h"
#include "trainer/result.h"
#include "trainer/step_metrics.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// The failure itself is what the caller reports, whether or not it can be recorded.
void record_failure(const fs::path& run_dir, ExitCode code, const char* message) try {
  RunResult result = read_result(run_dir).value_or(RunResult{});
  result.status = RunStatus::kFailed;
  result.exit_code = static_cast<int>(code);
  result.message = message;
  write_result(run_dir, result);
} catch (const std::exception& error) {
  log_error(error.what());
}

FileLock lock_run(const fs::path& run_dir, std::chrono::seconds patience = {}) {
  return FileLock(run_dir / "run.lock", "run " + run_dir.string(), patience);
}

// Slurm starts the next job of a chain as soon as it has given one up, whose processes may still
// be ending (KillWait, 30 s by default), or be on a dead node that a file server still believes in.
FileLock lock_run_at_start(const fs::path& run_dir) {
  return lock_run(run_dir, std::chrono::minutes(SlurmJob::of_environment() ? 2 : 0));
}

// How a job ended that the lead learner could not write the end of, being dead or not the one that
// failed.
void record_end(const fs::path& run_dir, const JobEnd& end) try {
  if (end.failure.empty()) return;
  const FileLock lock = lock_run(run_dir);
  RunResult result = read_result(run_dir).value_or(RunResult{});
  if (result.status == RunStatus::kDone || result.status == RunStatus::kFailed) return;
  if (result.status == RunStatus::kStopped && end.on_request) return;
  result.status = end.on_request ? RunStatus::kStopped : RunStatus::kFailed;
  result.exit_code = end.code;
  result.message = end.failure;
  write_result(run_dir, result);
} catch (const Error& error) {
  log_error(error.what());
}

// The lead learner's errors end in result.json too: the only proof of how a run ended.
RunResult lead(const TrainSetup& setup, const ModelSpec& spec, Communicator& communicator,
               RolloutServer& server, const StopSignal& stop) {
  try {
    return run_lead_learner(setup, spec, communicator, server,
                            [&] { return stop.stop_requested(); });
  } catch (const StorageError& error) {
    record_failure(setup.run_dir, ExitCode::kStopped, error.what());
    throw Error(error.what(), error.what_to_do(), ExitCode::kStopped);
  } catch (const Error& error) {
    record_failure(setup.run_dir, error.exit_code(), error.what());
    throw;
  } catch (const std::exception& error) {
    record_failure(setup.run_dir, ExitCode::kFailure, error.what());
    throw;
  }
}

// What the run left, for the person who started it.
void conclude(const RunResult& result) {
  if (!result.message.empty()) std::fprintf(stderr, "rollcall: %s\n", result.message.c_str());
  if (result.before && result.after)
    std::fprintf(stderr, "before training: %s\nafter training:  %s\n",
                 evaluation_line(*result.before).c_str(), evaluation_line(*result.after).c_str());
  std::fprintf(stderr, "report: %s\n", result.report.c_str());
  if (!result.export_dir.empty())
    std::fprintf(stderr, "exported checkpoint: %s\n", result.export_dir.c_str());
  if (!result.adapter_dir.empty())
    std::fprintf(stderr, "LoRA adapter: %s\n", result.adapter_dir.c_str());
}

ExitCode train_rank(const RunConfig& config, World& world, const StopSignal& stop) {
  if (world.rank() >= config.cluster.learners)
    return run_worker_rank(config, world, WeightSource::kLearner);
  const ModelSpec spec = read_model_spec(config.model.path);
  use_threads(learner_threads(config.cluster.learners));
  const TrainSetup setup = make_train_setup(config);
  const auto communicator =
      make_mpi_communicator(world, config.cluster.learners, config.cluster.learner_timeout);
  if (world.rank() > 0) {
    run_following_learner(setup, spec, *communicator);
    return ExitCode::kDone;
  }
  const FileLock lock = lock_run_at_start(setup.run_dir);
  mark_result_running(setup.run_dir);
  RolloutServer server(world, config.cluster, weight_bytes(config, spec));
  const RunResult result = lead(setup, spec, *communicator, server, stop);
  server.shut_down(std::chrono::seconds(5));
  conclude(result);
  return static_cast<ExitCode>(result.exit_code);
}

// A job that was preempted is not to blame for its little headway.
NextJob next_job(const JobEnd& end, const SlurmJob& job, bool moved) {
  const NextJob next = next_job(end, moved);
  return next == NextJob::kPointless && job.preempted() ? NextJob::kSame : next;
}

// A Slurm job whose run can go on goes back into the queue.
void requeue(const SlurmJob& job, const fs::path& run_dir, NextJob next) try {
  if (next == NextJob::kPointless)
    std::fprintf(stderr,
                 "rollcall: job %s is not put back into the queue: it has brought the run no "
                 "further\n  what to do: see the log, and give the job more time\n",
                 job.id().c_str());
  if (next != NextJob::kSame) return;
  job.requeue();
  std::fprintf(stderr, "rollcall: job %s is queued again\n", job.id().c_str());
  const FileLock lock = lock_run(run_dir);
  RunResult result = read_result(run_dir).value_or(RunResult{});
  result.message += "; job " + job.id() + " is queued again";
  write_result(run_dir, result);
} catch (const Error& error) {
  std::fprintf(stderr, "rollcall: %s\n  what to do: %s\n", error.what(),
               error.what_to_do().c_str());
}

// As the process that stays: a rank may fail before the lead learner marks the run as running, or
// without it.
int run_ranks(const RunConfig& config, const RunArguments& arguments, bool may_requeue) {
  const fs::path run_dir = run_directory(config);
  {
    const FileLock lock = lock_run_at_start(run_dir);
    mark_result_running(run_dir);
  }
  const auto job = SlurmJob::of_environment();
  std::optional<StopClock> clock;
  if (job && config.cluster.stop_before.count() > 0)
    clock.emplace([&job] { return job->time_left(); }, config.cluster.stop_before);
  const bool may_go_back = may_requeue && job;
  const Headway before = may_go_back ? headway(run_dir) : Headway{};
  const JobEnd end = start_ranks(config.cluster, arguments, clock ? &*clock : nullptr);
  record_end(run_dir, end);
  if (may_go_back) requeue(*job, run_dir, next_job(end, *job, headway(run_dir) > before));
  return end.code;
}

bool is_done(const RunConfig& config) {
  const auto result = read_result(run_directory(config));
  return result && result->status == RunStatus::kDone && result->step >= config.run.steps;
}

}  // namespace

int train_command(const RunArguments& arguments, bool requeue) {
  const RunConfig config = load_run_config(arguments, Purpose::kTrain);
  if (!under_launcher()) {
    if ((requeue || SlurmJob::of_environment()) && is_done(config)) {
      std::fprintf(stderr, "rollcall: run %s is done\n", config.run.name.c_str());
      return 0;
    }
    const StopSignal stop;  // until the ranks' parent takes signals over
    check_inputs(config, read_result(run_directory(config)).has_value());
    if (stop.stop_requested()) {
      std::fprintf(stderr, "rollcall: ended on request, before the ranks were started\n");
      return static_cast<int>(ExitCode::kStopped);
    }
    return run_ranks(config, arguments, requeue);
  }
  return run_rank(config, [&](World& world, const StopSignal& stop) {
    return train_rank(config, world, stop);
  });
}

int roles_command(const RunArguments& arguments) {
  const RunConfig config = load_run_config(arguments, Purpose::kTrain);
  for (int rank = 0; rank < config.cluster.learners + config.cluster.workers; ++rank)
    std::printf("rank %d: %s\n", rank,
                rank == 0                        ? "lead learner"
                : rank < config.cluster.learners ? "learner"
                                                 : "rollout worker");
  return 0;
}

}  // namespace rollcall
