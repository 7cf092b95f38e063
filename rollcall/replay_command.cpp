// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "comms/communicator.h"
#include "comms/error.h"
#include "comms/world.h"
#include "model/model_spec.h"
#include "rollcall/commands.h"
#include "rollcall/ranks.h"
#include "rollcall/run_setup.h"
#include "trainer/replay.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string number_text(double value) {
  return std::isnan(value) ? "none" : fmt::format("{:.6g}", value);
}

std::string difference_text(const ReplayDifference& d) {
  return fmt::format("{}: the run has {}, the replay {}", d.what, d.recorded, d.replayed);
}

std::string verdict_text(const ReplayedStep& step) {
  if (!step.differences.empty()) {
    const std::size_t more = step.differences.size() - 1;
    return "DIFFERENT: " + difference_text(step.differences.front()) +
           (more > 0 ? fmt::format("; and {} more", more) : "");
  }
  std::string compared = fmt::format("{} values of the journal", step.uses);
  if (step.numbers > 0) compared += fmt::format(", {} numbers of metrics.jsonl", step.numbers);
  if (!step.weights.empty()) compared += ", weights of " + step.weights;
  return "identical: " + compared;
}

std::string line_of(const ReplayedStep& step) {
  return fmt::format("step {}: {} rollouts, signal {}/{} groups, loss {}, gradient norm {}; {}\n",
                     step.step, step.rollouts, step.groups_signal, step.groups,
                     number_text(step.loss), number_text(step.grad_norm_l2), verdict_text(step));
}

// JSON has no NaN: null.
Json number_of(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json json_of(const ReplayedStep& step) {
  Json differences = Json::array();
  for (const ReplayDifference& d : step.differences)
    differences.push_back({{"what", d.what}, {"recorded", d.recorded}, {"replayed", d.replayed}});
  return {{"step", step.step},
          {"rollouts", step.rollouts},
          {"groups", step.groups},
          {"groups_signal", step.groups_signal},
          {"loss", number_of(step.loss)},
          {"grad_norm_l2", number_of(step.grad_norm_l2)},
          {"compared",
           {{"uses", step.uses},
            {"metrics", step.numbers},
            {"weights", step.weights.empty() ? Json(nullptr) : Json(step.weights)}}},
          {"differences", std::move(differences)}};
}

Json json_of(const Replay& replay, const ReplayArguments& arguments) {
  Json steps = Json::array();
  for (const ReplayedStep& step : replay.steps) steps.push_back(json_of(step));
  return {{"run", arguments.run_dir.string()},
          {"step", arguments.step},
          {"verdict", replay.identical() ? "identical" : "different"},
          {"from", replay.from},
          {"notes", replay.notes},
          {"steps", std::move(steps)}};
}

std::string conclusion_of(const Replay& replay, std::int64_t step) {
  std::string text = "began with " + replay.from + "\n";
  for (const std::string& note : replay.notes) text += "note: " + note + "\n";
  if (!replay.identical())
    return text + fmt::format("step {} comes out otherwise\n", replay.steps.back().step);
  const bool weights = !replay.steps.back().weights.empty();
  return text + fmt::format("step {} comes out the same{}\n", step,
                            weights ? ", bit for bit"
                                    : "; no checkpoint is left to compare its weights with");
}

ExitCode show_replay(const ReplayArguments& arguments, const TrainSetup& setup,
                     std::span<const RunPeriod> periods, Communicator& communicator) {
  const ModelSpec spec = read_model_spec(setup.model_dir);
  const auto show = [&](const ReplayedStep& step) {
    if (arguments.json) return;
    std::fputs(line_of(step).c_str(), stdout);
    std::fflush(stdout);
  };
  const Replay replay = replay_steps(setup, periods, spec, communicator, arguments.step, show);
  std::fputs(arguments.json ? (json_of(replay, arguments).dump() + "\n").c_str()
                            : conclusion_of(replay, arguments.step).c_str(),
             stdout);
  std::fflush(stdout);
  return replay.identical() ? ExitCode::kDone : ExitCode::kFailure;
}

ExitCode replay_rank(const ReplayArguments& arguments, const RunConfig& config,
                     const TrainSetup& setup, std::span<const RunPeriod> periods, World& world) {
  use_threads(learner_threads(config.cluster.learners));
  const auto communicator =
      make_mpi_communicator(world, config.cluster.learners, config.cluster.learner_timeout);
  if (world.rank() == 0) return show_replay(arguments, setup, periods, *communicator);
  run_following_learner(setup, read_model_spec(setup.model_dir), *communicator);
  return ExitCode::kDone;
}

}  // namespace

// Gradients of several learners are added in an order of their own: as many have to replay them.
int replay_command(const ReplayArguments& arguments) {
  // Where things are is what config.yaml says now; how they are computed is what the step had.
  const RunConfigs configs = configs_of_run(arguments.run_dir);
  const std::vector<RunPeriod> periods = periods_of(configs);
  RunConfig config = configs.back().second;
  const RunConfig& then = std::ranges::find_if(configs, [&](const auto& c) {
                            return arguments.step < c.first;
                          })->second;
  config.batch = then.batch;
  config.algorithm = then.algorithm;
  config.rollout = then.rollout;
  config.alarms = then.alarms;
  config.cluster.learners = then.cluster.learners;
  RunConfig learners = config;  // and nobody else
  learners.cluster.workers = 0;
  if (config.cluster.learners > 1 && !under_launcher())
    return start_ranks(learners.cluster, arguments.run).code;
  const TrainSetup setup = make_replay_setup(config, fs::absolute(arguments.run_dir));
  if (config.cluster.learners > 1)
    run_rank(
        learners,
        [&](World& world, const StopSignal&) {
          return replay_rank(arguments, config, setup, periods, world);
        },
        RankLog::kNone);
  use_threads(learner_threads(1));
  return static_cast<int>(show_replay(arguments, setup, periods, *make_single_communicator()));
}

}  // namespace rollcall
