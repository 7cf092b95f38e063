// SPDX-License-Identifier: Apache-2.0
#include "rollcall/worker_rank.h"

#include <sys/types.h>

#include <string>

#include "comms/rollout_link.h"
#include "comms/world.h"
#include "rollcall/ranks.h"
#include "rollcall/run_setup.h"

// jemalloc's, or null where another allocator is linked.
extern "C" int mallctl(const char*, void*, std::size_t*, void*, std::size_t) __attribute__((weak));

namespace rollcall {
namespace {

// A worker's memory comes in many sizes and would grow with the holes between them if all of it
// were kept, as cmake/allocator.cpp asks for.
void give_back_freed_memory() {
  if (mallctl == nullptr) return;
  ::ssize_t milliseconds = 10000;
  const auto set = [&](const std::string& arenas) {
    mallctl((arenas + ".dirty_decay_ms").c_str(), nullptr, nullptr, &milliseconds,
            sizeof milliseconds);
  };
  set("arenas");  // those to come
  for (int i = 0; i < 64; ++i) set("arena." + std::to_string(i));
}

}  // namespace

ExitCode run_worker_rank(const RunConfig& config, World& world, WeightSource source) {
  const ModelSpec spec = read_model_spec(config.model.path);
  give_back_freed_memory();
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
