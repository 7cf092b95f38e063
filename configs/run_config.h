// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comms/cluster_options.h"
#include "model/model_options.h"
#include "rollout_workers/rollout_options.h"
#include "trainer/train_options.h"

namespace rollcall {

struct PolicyOptions {                // policy:
  std::string placement = "workers";  // who samples tokens
  bool lead_samples() const { return placement == "learners"; }
  std::int64_t max_lag = 0;       // versions that a sampled token may be behind
  bool in_flight_updates = true;  // with max_lag: rollouts under way go on with newer weights
  std::string device = "cpu";     // or cuda: where those who sample compute
  double gpu_cache_gb = 0;        // for keys and values of an engine; 0: most of what is free
};

// A whole run file, every default filled in. Paths are absolute (but run.dir, which is as written),
// header values hold their secrets.
struct RunConfig {
  RunOptions run;
  ModelOptions model;
  DataOptions data;
  std::vector<ToolOptions> tools;
  GraderOptions grader;
  RolloutOptions rollout;
  BatchOptions batch;
  AlgorithmOptions algorithm;
  AlarmOptions alarms;
  PolicyOptions policy;
  ClusterOptions cluster;
  CheckpointOptions checkpoint;
  EvalOptions eval;
  SftOptions sft;
  // What was written where a value came from ${NAME}, by its path
  // ("tools.0.headers.authorization"): all that may be shown of such a value.
  std::map<std::string, std::string> as_written;
};

// What a run file is read for decides which keys must be there.
enum class Purpose { kTrain, kSft };

using EnvironmentLookup = std::function<std::optional<std::string>(const std::string& name)>;

// Reads a run file and the `--set a.b.c=value` overrides. Throws one input Error that names every
// problem with file, line and column, or "--set N". No secret is part of it.
RunConfig read_run_config(const std::filesystem::path& file, std::span<const std::string> overrides,
                          const EnvironmentLookup&, Purpose = Purpose::kTrain);

// The same for a text: `file` names it in errors, and its folder is where relative paths start.
RunConfig parse_run_config(const std::string& text, const std::filesystem::path& file,
                           std::span<const std::string> overrides, const EnvironmentLookup&,
                           Purpose = Purpose::kTrain);

// The run file that gives this config again from any folder, every default written out. Values that
// came from ${NAME} are written as that, all other header values as "redacted".
std::string effective_yaml(const RunConfig&);

// docs/configuration.md: every key with type, default and meaning, in Markdown.
std::string configuration_reference();

}  // namespace rollcall
