// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "configs/run_config.h"
#include "rollcall/commands.h"
#include "rollout_workers/worker.h"
#include "trainer/run_period.h"
#include "trainer/training_loop.h"

namespace rollcall {

// From the configuration to what each role is given.
RunConfig load_run_config(const RunArguments&, Purpose);
// What a run in `run_dir` was last started with. Secrets are left as the names of their variables.
RunConfig config_of_run(const std::filesystem::path& run_dir);
// All that it had, in order, each with the first step that is not of it; a resume may change some.
// The last is that of config_of_run().
using RunConfigs = std::vector<std::pair<std::int64_t, RunConfig>>;
RunConfigs configs_of_run(const std::filesystem::path& run_dir);
std::vector<RunPeriod> periods_of(const RunConfigs&);
std::filesystem::path run_directory(const RunConfig&);
// A dataset as a journal's `about` tells it: how many rows, and a hash of them.
std::string describe_dataset(const std::filesystem::path& file);
TrainSetup make_train_setup(const RunConfig&);
// The same for a run that is only looked at: its datasets need not be there, and it may have been
// moved to `run_dir`. No alarm ends it.
TrainSetup make_replay_setup(const RunConfig&, const std::filesystem::path& run_dir);
WorkerSetup make_worker_setup(const RunConfig&, int rank);
// What travels from the lead learner to each worker whenever the policy changes.
std::size_t weight_bytes(const RunConfig&, const ModelSpec&);

// How the policy is trained; nothing: all its weights. A fresh adapter follows from `seed`.
std::optional<LoraStart> lora_start(const ModelOptions&, std::uint64_t seed);

// Everything that can be found wrong without starting a rank: model, tokenizer, template, every row
// of the datasets, run directory, endpoints. Throws Error; warns of tools that nothing serves, and
// where the run has begun of endpoints that do not answer.
void check_inputs(const RunConfig&, bool began);
// The part of it that only reads files.
void check_model_and_data(const RunConfig&);

}  // namespace rollcall
