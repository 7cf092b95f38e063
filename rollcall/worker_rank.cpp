// SPDX-License-Identifier: Apache-2.0
#include "rollcall/worker_rank.h"

#include "comms/rollout_link.h"
#include "comms/world.h"
#include "rollcall/ranks.h"
#include "rollcall/run_setup.h"

namespace rollcall {
ExitCode run_worker_rank(const RunConfig& config, World& world, WeightSource source) {
  const ModelSpec spec = read_model_spec(config.model.path);
  use_threads(1);  // workers share a node: each decodes on one core
  const bool from_files = source == WeightSource::kModelFiles;
  RolloutClient client(world, config.cluster, from_files ? 0 : weight_bytes(config, spec));
  WorkerSetup setup = make_worker_setup(config, world.rank());
  setup.loads_model = from_files && !setup.lead_samples;
  if (from_files) setup.adapter = config.model.adapter;
  run_worker(setup, client);
  return client.lost_lead() ? ExitCode::kStopped : ExitCode::kDone;
}

}  // namespace rollcall
