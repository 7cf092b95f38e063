// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "configs/field.h"
#include "configs/run_config.h"

namespace rollcall {

// The keys of each section.
std::vector<Field<RunOptions>> run_fields();
std::vector<Field<ModelOptions>> model_fields();
std::vector<Field<LoraOptions>> lora_fields();  // inside model
std::vector<Field<ChatOptions>> chat_fields();  // likewise
std::vector<Field<DataOptions>> data_fields();
std::vector<Field<ToolOptions>> tool_fields();
std::vector<Field<GraderOptions>> grader_fields();
std::vector<Field<SecondGraderOptions>> second_grader_fields();  // inside grader
std::vector<Field<RolloutOptions>> rollout_fields();
std::vector<Field<AdaptiveOptions>> adaptive_fields();
std::vector<Field<BatchOptions>> batch_fields();
std::vector<Field<AlgorithmOptions>> algorithm_fields();
std::vector<Field<AlarmOptions>> alarm_fields();
std::vector<Field<PolicyOptions>> policy_fields();
std::vector<Field<ClusterOptions>> cluster_fields();
std::vector<Field<CheckpointOptions>> checkpoint_fields();
std::vector<Field<EvalOptions>> eval_fields();
std::vector<Field<SftOptions>> sft_fields();

// What `algorithm.profile` and `algorithm.loss` set where no other key does; an empty loss is the
// profile's own.
AlgorithmOptions profile_defaults(const std::string& profile, const std::string& loss);
std::vector<std::string_view> profile_names();

// Calls visitor.section(name, meaning, fields, options) for every section of `config` in the order
// of a run file, and visitor.list(...) for `tools`.
template <typename Config, typename Visitor>
void visit_sections(Config& config, Visitor& visitor) {
  visitor.section("run", "The run and its folder.", run_fields(), config.run);
  visitor.section("model", "The policy to start from.", model_fields(), config.model);
  visitor.section("data", "Tasks, one JSON object a line.", data_fields(), config.data);
  visitor.list("tools", "HTTP endpoints that serve the tools named in the tasks.", tool_fields(),
               config.tools);
  visitor.section("grader", "The HTTP endpoint that scores a rollout.", grader_fields(),
                  config.grader);
  visitor.section("rollout", "The limits of one rollout.", rollout_fields(), config.rollout);
  visitor.section("batch", "Rollouts per optimizer step.", batch_fields(), config.batch);
  visitor.section("algorithm",
                  "How rewards become an update. The profile, and within it the loss, set the "
                  "defaults; every other key overrides them.",
                  algorithm_fields(), config.algorithm);
  visitor.section("alarms",
                  "What ends a run (exit code 4) before it spends more, or is worth a warning.",
                  alarm_fields(), config.alarms);
  visitor.section("policy", "Where tokens are sampled and how old the policy may be.",
                  policy_fields(), config.policy);
  visitor.section("cluster", "Ranks of the run: learners first, then workers.", cluster_fields(),
                  config.cluster);
  visitor.section("checkpoint", "What a stopped run goes on from.", checkpoint_fields(),
                  config.checkpoint);
  visitor.section("eval", "Evaluation on `data.valid`.", eval_fields(), config.eval);
  visitor.section("sft", "`rollcall sft`: a warm start from demonstrations.", sft_fields(),
                  config.sft);
}

}  // namespace rollcall
