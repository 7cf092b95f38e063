// SPDX-License-Identifier: Apache-2.0
#include "rollcall/evaluated_model.h"

#include "comms/error.h"
#include "rollcall/run_setup.h"
#include "trainer/checkpoint.h"
#include "trainer/export.h"
#include "trainer/result.h"
#include "trainer/run_facts.h"
#include "trainer/trained_policy.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

bool is_model(const fs::path& dir) { return fs::exists(dir / "config.json"); }

bool is_checkpoint(const fs::path& dir) { return fs::exists(dir / "MANIFEST.json"); }

fs::path canonical_path(const fs::path& named) { return fs::weakly_canonical(fs::absolute(named)); }

EvaluatedModel of_run(const fs::path& run, const fs::path& scratch) {
  const auto result = read_result(run);
  const bool done = result && result->status == RunStatus::kDone;
  if (done && is_model(run / "export")) return {run / "export", {}};
  const auto newest = newest_checkpoint(run / "checkpoints");
  if (!newest)
    throw input_error(run.string() + " has neither an export nor a complete checkpoint",
                      "name a model directory, or wait for the run's first checkpoint");
  return {scratch, *newest};
}

}  // namespace

fs::path run_of_policy(const fs::path& named) {
  if (named.empty()) return {};
  const fs::path path = canonical_path(named);
  const fs::path run = is_model(path)        ? path.parent_path()
                       : is_checkpoint(path) ? path.parent_path().parent_path()
                                             : path;
  return is_run(run) && fs::exists(run / "config.yaml") ? run : fs::path();
}

EvaluatedModel find_evaluated_model(const fs::path& named, const fs::path& scratch) {
  const fs::path path = canonical_path(named);
  if (is_model(path)) return {path, {}};
  if (is_checkpoint(path)) return {scratch, path};
  if (is_run(path)) return of_run(path, scratch);
  throw input_error(
      named.string() + " is no model directory, no run and no checkpoint of a run",
      "name a Hugging Face directory, runs/<name>, or runs/<name>/checkpoints/step-N");
}

void make_evaluated_model(const EvaluatedModel& model) {
  if (model.checkpoint.empty()) return;
  const fs::path run = run_of_policy(model.checkpoint);
  if (run.empty())
    throw input_error(model.checkpoint.string() + ": its run left no config.yaml",
                      "rollcall export makes a model directory of a run's checkpoint");
  const RunConfig config = config_of_run(run);
  const fs::path base = config.model.path;
  const StoredPolicy policy = checkpointed_policy(model.checkpoint, base, read_model_spec(base));
  fs::create_directories(model.dir.parent_path());
  export_model(base, policy.weights, config.model.dtype, model.dir);
}

}  // namespace rollcall
