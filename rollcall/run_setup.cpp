// SPDX-License-Identifier: Apache-2.0
#include "rollcall/run_setup.h"

#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <system_error>

#include "comms/error.h"
#include "comms/log.h"
#include "comms/task.h"
#include "model/chat_format.h"
#include "model/cpu_kernels.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "rollcall/version.h"
#include "rollout_workers/endpoint_check.h"
#include "rollout_workers/redact.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

// The rows of a dataset; an error names the run file's key. No file, no rows.
std::vector<Task> tasks_of(const std::string& file, const char* key) {
  if (file.empty()) return {};
  try {
    return read_tasks(file);
  } catch (const Error& error) {
    throw input_error(std::string(key) + ": " + error.what(), error.what_to_do());
  }
}

std::string about_run(const RunConfig& config) {
  return nlohmann::ordered_json{{"rollcall", kVersion},
                                {"torch", kTorchVersion},
                                {"kernels", cpu_kernels().isa},
                                {"config", effective_yaml(config)}}
      .dump();
}

void warn_of_short_secrets(const RunConfig& config) {
  SecretList all = config.grader.secrets;
  for (const auto& tool : config.tools)
    all.insert(all.end(), tool.secrets.begin(), tool.secrets.end());
  for (const std::string& variable : variables_too_short(all))
    log_warning("the value of " + variable + " has fewer than " + std::to_string(kShortestSecret) +
                " bytes: it is too short to be recognized as a secret in what servers send back, "
                "and will be stored and shown there");
}

}  // namespace

RunConfig load_run_config(const RunArguments& arguments, Purpose purpose) {
  return read_run_config(arguments.run_file, arguments.overrides, environment, purpose);
}

fs::path run_directory(const RunConfig& config) {
  return fs::absolute(fs::path(config.run.dir) / config.run.name);
}

TrainSetup make_train_setup(const RunConfig& config) {
  TrainSetup setup;
  setup.run = config.run;
  setup.batch = config.batch;
  setup.algorithm = config.algorithm;
  setup.alarms = config.alarms;
  setup.checkpoint = config.checkpoint;
  setup.eval = config.eval;
  setup.train_tasks = static_cast<std::int64_t>(tasks_of(config.data.train, "data.train").size());
  setup.valid_tasks = static_cast<std::int64_t>(tasks_of(config.data.valid, "data.valid").size());
  setup.model_dir = config.model.path;
  setup.run_dir = run_directory(config);
  setup.dtype = config.model.dtype;
  setup.effective_config = effective_yaml(config);
  setup.about = about_run(config);
  setup.valid_ids = Tokenizer(setup.model_dir / "tokenizer.json").size();
  setup.live_progress =
      environment("ROLLCALL_LIVE_PROGRESS").has_value() || ::isatty(STDERR_FILENO) == 1;
  return setup;
}

WorkerSetup make_worker_setup(const RunConfig& config, int rank) {
  return {config.model.path,
          config.tools,
          config.grader,
          config.rollout,
          tasks_of(config.data.train, "data.train"),
          tasks_of(config.data.valid, "data.valid"),
          config.run.name,
          rank,
          config.cluster.rollouts_per_worker,
          policy_dtype(config.model.dtype)};
}

void check_inputs(const RunConfig& config) {
  const fs::path model = config.model.path;
  const ModelSpec spec = read_model_spec(model);
  const Tokenizer tokenizer(model / "tokenizer.json");
  make_chat_format(model, tokenizer);
  if (tokenizer.size() > spec.vocab_size)
    throw input_error("model.path: " + model.string() + ": the tokenizer has " +
                          std::to_string(tokenizer.size()) + " ids, the model " +
                          std::to_string(spec.vocab_size) + " embedding rows",
                      "this tokenizer.json belongs to another model");
  tasks_of(config.data.train, "data.train");
  tasks_of(config.data.valid, "data.valid");
  std::error_code error;
  fs::create_directories(run_directory(config) / "log", error);
  if (error)
    throw input_error(
        "run.dir: cannot create " + run_directory(config).string() + ": " + error.message(),
        "choose a folder you may write to, on a file system that all learners see");
  warn_of_short_secrets(config);
  wait_for_endpoints(config.tools, config.grader, std::chrono::seconds(15));
}

}  // namespace rollcall
