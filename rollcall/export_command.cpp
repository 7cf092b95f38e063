// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "comms/error.h"
#include "rollcall/commands.h"
#include "rollcall/run_setup.h"
#include "trainer/checkpoint.h"
#include "trainer/export.h"
#include "trainer/trained_policy.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// What to export and the directory whose other files go with it.
struct Source {
  fs::path dir;
  StoredPolicy policy;
};

Source from_model(const ExportArguments& a) {
  if (a.step >= 0 || a.adapter_only)
    throw input_error("--step and --adapter-only are for runs, and " + a.source.string() +
                          " holds no checkpoints",
                      "name the folder of a run: runs/<name>");
  if (a.adapter.empty() == a.merge)
    throw input_error("--adapter and --merge go together: the adapter becomes part of the weights",
                      "give both; an adapter alone is a folder that can be copied as it is");
  return {a.source, stored_policy(a.source, read_model_spec(a.source), a.adapter)};
}

fs::path wanted_checkpoint(const ExportArguments& a) {
  const fs::path checkpoints = a.source / "checkpoints";
  if (a.step >= 0) {
    const fs::path folder = checkpoint_folder(checkpoints, a.step);
    if (fs::exists(folder)) return folder;
    throw input_error(folder.string() + " is not there",
                      "checkpoint.every and checkpoint.keep say which steps are kept");
  }
  const auto newest = newest_checkpoint(checkpoints);
  if (!newest) throw input_error(a.source.string() + " has no complete checkpoint to export");
  return *newest;
}

Source from_run(const ExportArguments& a) {
  if (!a.adapter.empty() || a.merge)
    throw input_error("--adapter and --merge are for models: a run's own adapter is merged anyway",
                      "leave them out");
  const fs::path checkpoint = wanted_checkpoint(a);
  const fs::path dir = config_of_run(a.source).model.path;
  return {dir, checkpointed_policy(checkpoint, dir, read_model_spec(dir))};
}

}  // namespace

int export_command(const ExportArguments& a) {
  if (a.out.empty()) throw input_error("--out is empty", "name the folder to write");
  if (a.max_shard_bytes < 0) throw input_error("--max-shard-bytes is below 0");
  const Source source = fs::exists(a.source / "checkpoints") ? from_run(a) : from_model(a);
  if (a.adapter_only) {
    if (!source.policy.adapter)
      throw input_error("--adapter-only: the run trained every weight, it has no adapter",
                        "leave it out");
    export_adapter(*source.policy.adapter, source.dir, a.out);
  } else {
    export_model(source.dir, source.policy.weights, a.dtype, a.out, a.max_shard_bytes);
  }
  std::fprintf(stderr, "wrote %s\n", a.out.c_str());
  return 0;
}

}  // namespace rollcall
