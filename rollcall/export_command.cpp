// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>

#include "comms/error.h"
#include "rollcall/commands.h"
#include "rollcall/run_setup.h"
#include "trainer/checkpoint.h"
#include "trainer/export.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// The weights to export and the directory whose other files go with them.
struct Source {
  fs::path dir;
  FlatWeights weights;
};

Source from_model(const fs::path& dir) {
  const ModelSpec spec = read_model_spec(dir);
  Source source{dir, make_flat_weights(spec)};
  load_weights(dir, spec, source.weights);
  return source;
}

Source from_run(const fs::path& run_dir) {
  const auto newest = newest_checkpoint(run_dir / "checkpoints");
  if (!newest) throw input_error(run_dir.string() + " has no complete checkpoint to export");
  // Secrets are not needed here, so any value will do for them.
  const RunConfig config = read_run_config(
      run_dir / "config.yaml", {}, [](const std::string& name) { return std::optional(name); });
  Source source{config.model.path, make_flat_weights(read_model_spec(config.model.path))};
  const TrainState state = load_checkpoint(*newest);
  if (static_cast<std::int64_t>(state.masters.size()) != source.weights.flat.numel())
    throw input_error(newest->string() + " was made from another model than " +
                      source.dir.string());
  std::copy(state.masters.begin(), state.masters.end(), source.weights.flat.data_ptr<float>());
  return source;
}

}  // namespace

int export_command(const fs::path& path, const fs::path& out, const std::string& dtype) {
  const Source source = fs::exists(path / "checkpoints") ? from_run(path) : from_model(path);
  export_model(source.dir, source.weights.tensors, dtype, out);
  std::fprintf(stderr, "wrote %s\n", out.c_str());
  return 0;
}

}  // namespace rollcall
