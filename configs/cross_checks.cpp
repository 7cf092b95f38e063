// SPDX-License-Identifier: Apache-2.0
#include "configs/cross_checks.h"

#include <set>

#include "configs/value_text.h"

namespace rollcall {
namespace {

void need(const std::string& value, const std::string& path, const char* command,
          ReadContext& context) {
  if (value.empty() && !context.given(path)) {
    context.problem(path, std::string("rollcall ") + command + " needs this key");
  } else if (value.empty()) {
    context.problem(path, "must not be empty");
  }
}

void check_tools(const RunConfig& config, ReadContext& context) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < config.tools.size(); ++i) {
    const std::string path = "tools." + std::to_string(i);
    const std::string& name = config.tools[i].name;
    if (config.tools[i].url.empty()) context.problem(path + ".url", "must not be empty");
    if (!name.empty() && !names.insert(name).second) {
      context.problem(path + ".name", "a tool of the name " + cited(name) + " stands above");
    }
  }
}

void check_algorithm(const AlgorithmOptions& algorithm, ReadContext& context) {
  if (algorithm.dual_clip > 0 && algorithm.dual_clip <= 1) {
    context.problem("algorithm.dual_clip", "expected 0 (off) or a number more than 1, found " +
                                               format_number(algorithm.dual_clip));
  }
  if (algorithm.dual_clip > 0 && algorithm.loss != "ppo_clip" &&
      !context.failed("algorithm.loss")) {
    context.problem("algorithm.dual_clip",
                    "the loss " + algorithm.loss + " has no dual clip; only ppo_clip does");
  }
}

void check_lora(const RunConfig& config, ReadContext& context) {
  const ModelOptions& model = config.model;
  const bool lora = model.train == "lora";
  for (const char* key : {"rank", "alpha", "targets", "rslora"}) {
    const std::string path = std::string("model.lora.") + key;
    if (!context.given(path) || context.failed("model.train")) continue;
    if (!lora) context.problem(path, "needs model.train: lora");
    if (lora && !model.adapter.empty())
      context.problem(path, "the adapter in model.adapter brings its own");
  }
  if (lora || context.failed("model.train")) {
    if (lora && config.sft.from_scratch)
      context.problem("sft.from_scratch", "an adapter of random weights is of no use");
    return;
  }
  if (!model.adapter.empty())
    context.problem("model.adapter",
                    "needs model.train: lora; to train all weights from an adapter, merge it "
                    "first: rollcall export MODEL --adapter ADAPTER --merge --out DIR");
  if (!config.sft.adapter_out.empty())
    context.problem("sft.adapter_out", "needs model.train: lora");
}

void check_policy(const PolicyOptions& policy, ReadContext& context) {
  if (policy.placement != "workers") {
    context.problem("policy.placement",
                    "sampling on the learners is not part of this version; write workers");
  }
  if (policy.max_lag != 0) {
    context.problem("policy.max_lag",
                    "training on older versions is not part of this version; write 0");
  }
}

}  // namespace

void cross_check(const RunConfig& config, Purpose purpose, ReadContext& context) {
  if (purpose == Purpose::kTrain) {
    need(config.data.train, "data.train", "train", context);
    need(config.grader.url, "grader.url", "train", context);
  } else {
    need(config.sft.demonstrations, "sft.demonstrations", "sft", context);
    need(config.sft.out, "sft.out", "sft", context);
  }
  check_tools(config, context);
  check_algorithm(config.algorithm, context);
  check_lora(config, context);
  check_policy(config.policy, context);
  if (!context.failed("rollout.context") &&
      config.rollout.max_new_tokens > config.rollout.context) {
    context.problem("rollout.max_new_tokens",
                    "more than rollout.context (" + std::to_string(config.rollout.context) + ")");
  }
  if (!context.failed("cluster.heartbeat_every") &&
      config.cluster.heartbeat_every * 2 > config.cluster.worker_timeout) {
    context.problem("cluster.worker_timeout", "expected at least twice cluster.heartbeat_every (" +
                                                  format_duration(config.cluster.heartbeat_every) +
                                                  ")");
  }
  if (config.eval.every_steps > 0 && config.data.valid.empty() && !context.failed("data.valid")) {
    context.problem("eval.every", "there is nothing to evaluate on: data.valid is not set");
  }
}

}  // namespace rollcall
