// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/rollout_link.h"
#include "comms/stop_signal.h"
#include "comms/world.h"
#include "model/model_spec.h"
#include "model/weights.h"
#include "rollcall/canaries.h"
#include "rollcall/commands.h"
#include "rollcall/ranks.h"
#include "rollcall/run_setup.h"
#include "rollcall/worker_rank.h"
#include "trainer/preflight.h"
#include "trainer/step_plan.h"
#include "trainer/task_pool.h"
#include "trainer/trial.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kNothingPublished = 0;  // bytes: every worker reads the model itself
constexpr std::int64_t kFirstGroup = std::int64_t{1} << 41;  // rollouts unlike those of the run
constexpr std::size_t kProbeBytes = std::size_t{16} << 20;
constexpr double kStateBytes = 12;  // a trained parameter in a checkpoint: float32 and two moments

PlannedRun planned_run(const RunConfig& config) {
  return {.batch = config.batch,
          .advantage = config.algorithm.advantage,
          .steps = config.run.steps,
          .train_tasks = 0,
          .workers = config.cluster.workers,
          .rollouts_per_worker = config.cluster.rollouts_per_worker};
}

// As many rollouts in flight as in the run, from `workers` (0: the run's own number).
void use_workers(ClusterOptions& cluster, int workers, std::int64_t in_flight) {
  cluster.learners = 1;  // nothing is learnt: one rank leads
  if (workers > 0) cluster.workers = workers;
  cluster.rollouts_per_worker =
      static_cast<int>((in_flight + cluster.workers - 1) / cluster.workers);
}

// What was seen of the rollouts; their tokens stay in the journal.
void drop_tokens(std::vector<Collected>& collected) {
  for (Collected& c : collected) {
    Trajectory t = *c.trajectory;
    t.tokens = {};
    t.is_action = {};
    t.behavior_logprobs = {};
    t.token_version = {};
    c.trajectory = std::make_shared<const Trajectory>(std::move(t));
  }
}

AdvantageKind compared_by(const TrainSetup& setup) {
  return advantage_kind(setup.algorithm.advantage);
}

struct Sampling {
  std::vector<Collected> collected;
  std::int64_t samples = 0;  // of every task
  int rounds = 0;
  double seconds = 0;
  std::vector<Collected> unsolvable;  // of data.canaries
};

Sampling sample_tasks(const PreflightArguments& a, const TrainSetup& setup, Trial& trial) {
  const std::int64_t tasks = std::min({a.tasks, setup.train_tasks, a.max_rollouts / 2});
  const std::vector<std::int64_t> rows = TaskPool(setup.train_tasks, setup.run.seed).draw(tasks);
  Sampling s;
  std::int64_t more = std::min(a.samples, a.max_rollouts / tasks);
  while (more > 0) {
    auto round = trial.sample(plan_groups(setup.run.seed, Split::kTrain, 0, 0, rows, more,
                                          kFirstGroup + s.rounds * tasks),
                              "training");
    drop_tokens(round);
    std::ranges::move(round, std::back_inserter(s.collected));
    s.samples += more;
    ++s.rounds;
    more = further_samples(task_outcomes(s.collected, compared_by(setup)), tasks, s.samples,
                           a.max_rollouts);
  }
  s.seconds = trial.seconds();
  if (setup.canary_tasks == 0) return s;
  const std::int64_t canaries = std::min(a.tasks, setup.canary_tasks);
  const auto canary_rows = TaskPool(setup.canary_tasks, setup.run.seed).draw(canaries);
  s.unsolvable = trial.sample(plan_groups(setup.run.seed, Split::kCanary, 0, 0, canary_rows,
                                          setup.eval.samples, kFirstGroup + s.rounds * tasks),
                              "canaries");
  drop_tokens(s.unsolvable);
  return s;
}

Canary unsolvable_canary(std::span<const Collected> collected) {
  Canary canary{.name = kUnsolvable};
  for (const Collected& c : collected) {
    const Trajectory& t = *c.trajectory;
    canary.faults += infrastructure_failed(t.fault) ? 1 : 0;
    if (t.fault != FaultReason::kNone) continue;
    ++canary.graded;
    canary.passed += t.grade.passed ? 1 : 0;
  }
  return canary;
}

double trained_parameters(const RunConfig& config, const ModelSpec& spec) {
  if (config.model.train != "lora") return static_cast<double>(parameter_count(spec));
  double count = 0;
  for (const auto& [name, shape] : parameter_shapes(spec))
    for (const std::string& target : config.model.lora.targets)
      if (name.ends_with(target + ".weight"))
        count += static_cast<double>(config.model.lora.rank * (shape[0] + shape[1]));
  return count;
}

// Writes and removes a file in the run's folder.
double try_writing(const fs::path& folder) {
  const fs::path file = folder / "probe";
  const auto begin = std::chrono::steady_clock::now();
  write_durably(file, std::string(kProbeBytes, '\x5a'));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  fs::remove(file);
  return static_cast<double>(kProbeBytes) / took.count();
}

DiskNeed disk_need(const RunConfig& config, const ModelSpec& spec, const fs::path& journal,
                   double journalled, const Preflight& p) {
  DiskNeed d;
  const CheckpointOptions& c = config.checkpoint;
  const double rollouts = forecast(p.run, p.learnability).rollouts_of_run;
  d.journal = static_cast<double>(fs::file_size(journal)) / journalled * rollouts;
  d.checkpoint = kStateBytes * trained_parameters(config, spec);
  const std::int64_t made = c.every_steps > 0 ? config.run.steps / c.every_steps + 1 : 1;
  d.checkpoints = d.checkpoint * static_cast<double>(std::min<std::int64_t>(made, c.keep + 1));
  d.exported =
      static_cast<double>(parameter_count(spec)) * (config.model.dtype == "bfloat16" ? 2 : 4);
  d.free = static_cast<double>(fs::space(journal.parent_path()).available);
  d.bytes_per_second = try_writing(journal.parent_path());
  d.checkpoint_seconds = d.checkpoint / d.bytes_per_second;
  return d;
}

Preflight facts_of(const RunConfig& config, const TrainSetup& setup, const PlannedRun& run,
                   const Sampling& s) {
  Preflight p;
  p.name = config.run.name;
  p.model = config.model.path;
  p.dataset = config.data.train;
  p.planned = static_cast<std::int64_t>(s.collected.size());
  p.rounds = s.rounds;
  p.seconds = s.seconds;
  p.workers = config.cluster.workers;
  p.in_flight = std::min<std::int64_t>(p.planned / s.rounds,
                                       config.cluster.workers * config.cluster.rollouts_per_worker);
  p.run = run;
  p.learnability =
      learnability(task_outcomes(s.collected, compared_by(setup)), s.samples, setup.run.seed);
  p.endpoints = endpoint_uses(s.collected);
  p.left_out = left_out_by_reason(s.collected);
  p.discard_share = config.alarms.discard_share;
  for (const Collected& c : s.collected)
    if (c.trajectory->fault == FaultReason::kNone)
      p.least_reward = std::min(p.least_reward, c.trajectory->grade.reward);
  return p;
}

void try_grader(const RunConfig& config, const Sampling& s, const fs::path& journal, Preflight& p) {
  const std::vector<Task> tasks = read_tasks(config.data.train);
  const GradeProbeSetup setup{config.model.path, config.model.chat, config.grader, config.run.name};
  const GraderTrialSizes sizes;
  p.canaries = try_canaries(setup, tasks, s.collected, journal, sizes);
  if (!s.unsolvable.empty()) p.canaries.push_back(unsolvable_canary(s.unsolvable));
  p.regrading = try_regrading(setup, tasks, s.collected, journal, sizes);
}

Sampling sample_with_workers(const PreflightArguments& a, const RunConfig& config,
                             const TrainSetup& setup, const ModelSpec& spec, World& world,
                             const fs::path& journal, const StopSignal& stop) {
  RolloutServer server(world, config.cluster, kNothingPublished);
  Trial trial(setup, spec, server, journal, [&] { return stop.stop_requested(); });
  Sampling s = sample_tasks(a, setup, trial);
  server.shut_down(std::chrono::seconds(5));
  return s;
}

ExitCode lead(const PreflightArguments& a, const RunConfig& config, const PlannedRun& run,
              World& world, const StopSignal& stop) {
  use_threads(config.policy.lead_samples() ? learner_threads(1) : 1);
  const TrainSetup setup = make_train_setup(config);
  const ModelSpec spec = read_model_spec(config.model.path);
  const fs::path journal = setup.run_dir / "preflight" / "journal.h5";
  for (const char* old : {"preflight.json", "preflight.html"}) fs::remove(setup.run_dir / old);
  const Sampling s = sample_with_workers(a, config, setup, spec, world, journal, stop);
  PlannedRun planned = run;
  planned.train_tasks = setup.train_tasks;
  planned.hours = a.hours;
  Preflight p = facts_of(config, setup, planned, s);
  try_grader(config, s, journal, p);
  p.disk = disk_need(config, spec, journal,
                     static_cast<double>(s.collected.size() + s.unsolvable.size()), p);
  const PreflightJudgement j = judge(p);
  write_durably(setup.run_dir / "preflight.json", preflight_json(p, j));
  write_durably(setup.run_dir / "preflight.html", preflight_page(p, j));
  std::printf("%s%s\n", preflight_text(p, j).c_str(), (setup.run_dir / "preflight.html").c_str());
  std::fflush(stdout);
  return j.verdict == PreflightVerdict::kNo ? ExitCode::kAlarm : ExitCode::kDone;
}

}  // namespace

int preflight_command(const PreflightArguments& a) {
  RunConfig config = load_run_config(a.run, Purpose::kTrain);
  const PlannedRun planned = planned_run(config);
  use_workers(config.cluster, a.workers, planned.in_flight());
  if (!under_launcher()) {
    check_inputs(config, /*began=*/false);
    return start_ranks(config.cluster, a.run).code;
  }
  return run_rank(config, [&](World& world, const StopSignal& stop) {
    if (world.rank() > 0) return run_worker_rank(config, world, WeightSource::kModelFiles);
    return lead(a, config, planned, world, stop);
  });
}

}  // namespace rollcall
