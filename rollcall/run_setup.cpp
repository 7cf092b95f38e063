// SPDX-License-Identifier: Apache-2.0
#include "rollcall/run_setup.h"

#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/log.h"
#include "comms/task.h"
#include "model/chat_format.h"
#include "model/chat_template.h"
#include "model/cpu_kernels.h"
#include "model/published_weights.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "rollcall/dataset_check.h"
#include "rollcall/version.h"
#include "rollout_workers/endpoint_check.h"
#include "rollout_workers/redact.h"
#include "trainer/batch_replay.h"
#include "trainer/journal.h"
#include "trainer/resume_check.h"
#include "trainer/run_facts.h"

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

DatasetSummary summary_of(const std::string& file) {
  return file.empty() ? DatasetSummary{} : summarize_dataset(file);
}

std::string hash_text(std::uint64_t hash) { return fmt::format("xxh3 {:016x}", hash); }

std::string hash_text(const std::string& text) {
  return hash_text(XXH3_64bits(text.data(), text.size()));
}

std::string text_of(const DatasetSummary& data) {
  return fmt::format("{} rows, {}", data.rows, hash_text(data.xxh3));
}

// What a resume compares: see trainer/resume_check.h.
nlohmann::ordered_json inputs_of(const RunConfig& config, const DatasetSummary& train,
                                 const DatasetSummary& valid) {
  nlohmann::ordered_json inputs;
  const auto add = [&](const char* key, const DatasetSummary& data) {
    if (data.rows > 0) inputs[key] = text_of(data);
  };
  add("data.train", train);
  add("data.valid", valid);
  add("data.canaries", summary_of(config.data.canaries));
  const fs::path model = config.model.path;
  inputs["model.path, its tokenizer.json"] = hash_text(read_file(model / "tokenizer.json"));
  inputs["model.path, its chat template"] = hash_text(read_chat_template(model));
  return inputs;
}

std::string about_run(const RunConfig& config, const DatasetSummary& train,
                      const DatasetSummary& valid) {
  return nlohmann::ordered_json{{"rollcall", kVersion},
                                {"torch", kTorchVersion},
                                {"kernels", cpu_kernels().isa},
                                {"config", effective_yaml(config)},
                                {"inputs", inputs_of(config, train, valid)}}
      .dump();
}

void warn_of_short_secrets(const RunConfig& config) {
  SecretList all = config.grader.secrets;
  const SecretList& second = config.grader.second.secrets;
  all.insert(all.end(), second.begin(), second.end());
  for (const auto& tool : config.tools)
    all.insert(all.end(), tool.secrets.begin(), tool.secrets.end());
  for (const std::string& variable : variables_too_short(all))
    log_warning("the value of " + variable + " has fewer than " + std::to_string(kShortestSecret) +
                " bytes: it is too short to be recognized as a secret in what servers send back, "
                "and will be stored and shown there");
}

void check_dataset(const RunConfig& config, const char* key, const std::string& file,
                   const ChatFormat& format) {
  const std::vector<Task> tasks = tasks_of(file, key);
  std::set<std::string> served;
  for (const ToolOptions& tool : config.tools) served.insert(tool.name);
  const std::string unserved =
      check_rows(std::string(key) + ": " + file, tasks, format, config.rollout.context, served);
  if (!unserved.empty()) log_warning(unserved);
}

}  // namespace

RunConfig load_run_config(const RunArguments& arguments, Purpose purpose) {
  return read_run_config(arguments.run_file, arguments.overrides, environment, purpose);
}

namespace {

BaselineOnly baseline_only(const RolloutOptions& rollout) {
  return {rollout.on_limit == "mask_loss", rollout.on_void_turn == "mask_loss"};
}

RunConfig read_kept_config(const fs::path& file) {
  return read_run_config(file, {}, [](const std::string& name) { return std::optional(name); });
}

}  // namespace

RunConfig config_of_run(const fs::path& run_dir) {
  return read_kept_config(run_dir / "config.yaml");
}

RunConfigs configs_of_run(const fs::path& run_dir) {
  RunConfigs configs;
  for (const auto& [end, file] : former_configs(run_dir))
    configs.emplace_back(end, read_kept_config(file));
  configs.emplace_back(std::numeric_limits<std::int64_t>::max(), config_of_run(run_dir));
  return configs;
}

std::vector<RunPeriod> periods_of(const RunConfigs& configs) {
  std::vector<RunPeriod> periods;
  for (const auto& [end, config] : configs)
    periods.push_back({end, config.batch, config.algorithm, baseline_only(config.rollout),
                       config.policy.max_lag, config.alarms.grad_norm});
  return periods;
}

std::string describe_dataset(const fs::path& file) { return text_of(summarize_dataset(file)); }

fs::path run_directory(const RunConfig& config) {
  return fs::absolute(fs::path(config.run.dir) / config.run.name);
}

namespace {

// Of this rank among those on its host, as the launcher says; 0 without one.
int rank_on_host() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"})
    if (const char* value = std::getenv(name)) return std::max(0, std::atoi(value));
  return 0;
}

EngineOptions engine_options(const RunConfig& config, std::int64_t rollouts) {
  constexpr double kGiga = 1e9;
  EngineOptions options{config.rollout.context, rollouts, policy_dtype(config.model.dtype)};
  if (config.policy.device == "cuda") options.gpu = rank_on_host();
  options.gpu_cache_bytes = std::llround(config.policy.gpu_cache_gb * kGiga);
  return options;
}

std::optional<EngineOptions> lead_engine(const RunConfig& config) {
  if (!config.policy.lead_samples()) return {};
  return engine_options(config,
                        std::int64_t{config.cluster.workers} * config.cluster.rollouts_per_worker);
}

TrainSetup make_setup(const RunConfig& config, const DatasetSummary& train,
                      const DatasetSummary& valid) {
  TrainSetup setup;
  setup.run = config.run;
  setup.batch = config.batch;
  setup.algorithm = config.algorithm;
  setup.baseline_only = baseline_only(config.rollout);
  setup.alarms = config.alarms;
  setup.checkpoint = config.checkpoint;
  setup.eval = config.eval;
  setup.stop_grace = config.cluster.stop_grace;
  setup.learner_timeout = config.cluster.learner_timeout;
  setup.lead_engine = lead_engine(config);
  setup.max_lag = config.policy.max_lag;
  setup.train_tasks = train.rows;
  setup.valid_tasks = valid.rows;
  setup.canary_tasks = summary_of(config.data.canaries).rows;
  setup.model_dir = config.model.path;
  setup.lora = lora_start(config.model, config.run.seed);
  setup.run_dir = run_directory(config);
  setup.dtype = config.model.dtype;
  setup.effective_config = effective_yaml(config);
  setup.about = about_run(config, train, valid);
  setup.valid_ids = Tokenizer(setup.model_dir / "tokenizer.json").size();
  setup.live_progress =
      environment("ROLLCALL_LIVE_PROGRESS").has_value() || ::isatty(STDERR_FILENO) == 1;
  return setup;
}

WorkerSetup::NewerWeights newer_weights(const PolicyOptions& policy) {
  using NewerWeights = WorkerSetup::NewerWeights;
  if (policy.max_lag == 0) return NewerWeights::kNever;
  return policy.in_flight_updates ? NewerWeights::kInFlight : NewerWeights::kDrained;
}

}  // namespace

TrainSetup make_train_setup(const RunConfig& config) {
  return make_setup(config, summary_of(config.data.train), summary_of(config.data.valid));
}

TrainSetup make_replay_setup(const RunConfig& config, const fs::path& run_dir) {
  TrainSetup setup = make_setup(config, {}, {});
  setup.run_dir = run_dir;
  setup.train_tasks = train_tasks(JournalReader(journal_of(run_dir)));
  setup.alarms.logprob_gap = 0;
  return setup;
}

std::optional<LoraStart> lora_start(const ModelOptions& model, std::uint64_t seed) {
  if (model.train != "lora") return std::nullopt;
  return LoraStart{model.lora, seed, model.adapter};
}

WorkerSetup make_worker_setup(const RunConfig& config, int rank) {
  return {config.model.path,
          config.tools,
          config.grader,
          config.rollout,
          config.model.chat,
          tasks_of(config.data.train, "data.train"),
          tasks_of(config.data.valid, "data.valid"),
          tasks_of(config.data.canaries, "data.canaries"),
          config.run.name,
          rank,
          engine_options(config, config.cluster.rollouts_per_worker),
          config.policy.lead_samples(),
          newer_weights(config.policy),
          /*loads_model=*/false,
          /*adapter=*/{}};
}

std::size_t weight_bytes(const RunConfig& config, const ModelSpec& spec) {
  if (config.policy.lead_samples()) return 0;
  return published_bytes(spec, policy_dtype(config.model.dtype));
}

void check_model_and_data(const RunConfig& config) {
  const fs::path model = config.model.path;
  const ModelSpec spec = read_model_spec(model);
  if (!config.model.adapter.empty()) read_lora_adapter(config.model.adapter, spec);
  const Tokenizer tokenizer(model / "tokenizer.json");
  const auto format = make_chat_format(model, tokenizer, config.model.chat);
  if (tokenizer.size() > spec.vocab_size)
    throw input_error("model.path: " + model.string() + ": the tokenizer has " +
                          std::to_string(tokenizer.size()) + " ids, the model " +
                          std::to_string(spec.vocab_size) + " embedding rows",
                      "this tokenizer.json belongs to another model");
  check_dataset(config, "data.train", config.data.train, *format);
  check_dataset(config, "data.valid", config.data.valid, *format);
  check_dataset(config, "data.canaries", config.data.canaries, *format);
}

void check_inputs(const RunConfig& config, bool began) {
  check_model_and_data(config);
  std::error_code error;
  fs::create_directories(run_directory(config) / "log", error);
  if (error)
    throw input_error(
        "run.dir: cannot create " + run_directory(config).string() + ": " + error.message(),
        "choose a folder you may write to, on a file system that all learners see");
  warn_of_short_secrets(config);
  // A run that has begun waits for its endpoints as it would in the middle, by `give_up_after`: a
  // job that comes back while a server is restarted must not end for it.
  try {
    wait_for_endpoints(config.tools, config.grader, std::chrono::seconds(began ? 1 : 15));
  } catch (const Error& failure) {
    if (!began) throw;
    log_warning(std::string(failure.what()) + "; the run goes on and waits for it");
  }
}

}  // namespace rollcall
