// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <nlohmann/json.hpp>

#include "comms/log.h"
#include "comms/rollout_link.h"
#include "comms/stop_signal.h"
#include "comms/world.h"
#include "model/model_spec.h"
#include "rollcall/commands.h"
#include "rollcall/ranks.h"
#include "rollcall/run_setup.h"
#include "rollcall/worker_rank.h"
#include "trainer/result.h"
#include "trainer/step_metrics.h"

namespace rollcall {
namespace {

constexpr std::size_t kNothingPublished = 0;  // bytes: every worker reads the model itself

ExitCode eval_rank(const RunConfig& config, World& world) {
  if (world.rank() > 0) return run_worker_rank(config, world, WeightSource::kModelFiles);
  const ModelSpec spec = read_model_spec(config.model.path);
  use_threads(1);
  const TrainSetup setup = make_train_setup(config);
  RolloutServer server(world, config.cluster, kNothingPublished);
  const Evaluation e = run_evaluation(setup, spec, server);
  nlohmann::ordered_json line{{"model", config.model.path}, {"dataset", config.data.valid}};
  line.update(nlohmann::ordered_json::parse(evaluation_json(e)));
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
  if (e.faults + e.masked > 0) std::fprintf(stderr, "%s\n", evaluation_line(e).c_str());
  server.shut_down(std::chrono::seconds(5));
  return ExitCode::kDone;
}

}  // namespace

int eval_command(const RunArguments& arguments, const std::filesystem::path& checkpoint) {
  RunConfig config = load_run_config(arguments, Purpose::kTrain);
  if (!checkpoint.empty()) {  // stands for itself, without the run file's adapter
    config.model.path = std::filesystem::absolute(checkpoint).string();
    config.model.adapter.clear();
  }
  config.cluster.learners = 1;  // nothing is learnt: one rank leads
  if (config.data.valid.empty())
    throw input_error("rollcall eval needs data.valid", "name a held-out dataset in the run file");
  if (!under_launcher()) {
    check_inputs(config, /*began=*/false);
    return start_ranks(config.cluster, arguments).code;
  }
  return run_rank(config,
                  [&](World& world, const StopSignal&) { return eval_rank(config, world); });
}

}  // namespace rollcall
