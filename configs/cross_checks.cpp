// SPDX-License-Identifier: Apache-2.0
#include "configs/cross_checks.h"

#include <algorithm>
#include <set>

#include "configs/schema.h"
#include "configs/value_text.h"
#include "trainer/corrections.h"

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

// Keys that some losses alone read: elsewhere they must keep their default, or they would be
// ignored.
struct LossKey {
  const char* key;
  double AlgorithmOptions::*member;
  std::vector<std::string_view> losses;
};

std::vector<LossKey> loss_keys() {
  using O = AlgorithmOptions;
  return {{"clip_low", &O::clip_low, {"ppo_clip", "cispo", "gspo"}},
          {"clip_high", &O::clip_high, {"ppo_clip", "cispo", "gspo"}},
          {"dual_clip", &O::dual_clip, {"ppo_clip"}},
          {"divergence", &O::divergence, {"dppo_tv"}},
          {"ratio_cap", &O::ratio_cap, {"dppo_tv"}},
          {"tau_positive", &O::tau_positive, {"sapo"}},
          {"tau_negative", &O::tau_negative, {"sapo"}}};
}

void check_loss(const AlgorithmOptions& a, ReadContext& context) {
  if (a.dual_clip > 0 && a.dual_clip <= 1) {
    context.problem("algorithm.dual_clip", "expected 0 (off) or a number more than 1, found " +
                                               format_number(a.dual_clip));
  }
  if (context.failed("algorithm.loss")) return;
  const AlgorithmOptions usual = profile_defaults(a.profile, a.loss);
  for (const auto& [key, member, losses] : loss_keys()) {
    if (a.*member == usual.*member || std::count(losses.begin(), losses.end(), a.loss) > 0)
      continue;
    context.problem(std::string("algorithm.") + key,
                    "the loss " + a.loss + " does not read it; these do: " + joined(losses));
  }
  if (a.anchor == "old" && a.loss == "reinforce")
    context.problem("algorithm.anchor", "reinforce takes no ratio");
  if (a.anchor == "old" && a.loss == "dppo_tv") {
    context.problem("algorithm.anchor",
                    "dppo_tv measures how far a token is from the policy that sampled it; write "
                    "rollout");
  }
}

void check_aggregation(const AlgorithmOptions& a, ReadContext& context) {
  if (a.loss == "gspo" && a.aggregation != "seq_mean_token_mean") {
    context.problem("algorithm.aggregation",
                    "gspo weighs whole sequences; write seq_mean_token_mean");
  }
  const double usual = profile_defaults(a.profile, a.loss).aggregation_constant;
  if (a.aggregation_constant != usual && a.aggregation != "seq_mean_token_sum_const") {
    context.problem("algorithm.aggregation_constant",
                    "only the aggregation seq_mean_token_sum_const reads it");
  }
}

// What takes from a reward, or gives less than 0.
std::vector<std::string> ways_below_zero(const RunConfig& config) {
  std::vector<std::string> keys;
  if (config.algorithm.kl.coefficient > 0 && config.algorithm.kl.form == "k1_reward")
    keys.emplace_back("algorithm.kl.coefficient");
  if (config.grader.gate_value < 0) keys.emplace_back("grader.gate_value");
  for (const FlagAction& flag : config.grader.flags)
    if (flag.action == "penalize" && flag.value < 0) keys.push_back("grader.flags." + flag.flag);
  for (const GradePart& part : config.grader.parts)
    if (part.value < 0 && config.grader.reward != "passed")
      keys.push_back("grader.parts." + part.name);
  return keys;
}

void check_compared_rewards(const RunConfig& config, ReadContext& context) {
  const AlgorithmOptions& a = config.algorithm;
  if (a.advantage == "maxrl")
    for (const std::string& key : ways_below_zero(config))
      context.problem(key,
                      "maxrl divides by the mean reward of a group, which this can take to 0 "
                      "and below; use another advantage, or do without");
  if (a.advantage != "passk") return;
  const std::string counts = "the advantage passk counts passes alone and would not see this";
  if (a.kl.coefficient > 0 && a.kl.form == "k1_reward")
    context.problem("algorithm.kl.form", counts + "; write k2 or k3");
  const RolloutOptions& r = config.rollout;
  if (r.tool_budget.cap > 0) context.problem("rollout.tool_budget", counts);
  if (r.latency_budget.cap > 0) context.problem("rollout.latency_budget", counts);
  if (r.length_budget.cap > 0) context.problem("rollout.length_budget", counts);
  for (const FlagAction& flag : config.grader.flags)
    if (flag.action == "penalize") context.problem("grader.flags." + flag.flag, counts);
}

void check_advantage(const AlgorithmOptions& a, const BatchOptions& batch, ReadContext& context) {
  if (a.denominator == "all" && (a.advantage == "gae" || a.kl_in_loss()))
    context.problem("algorithm.denominator",
                    "with a critic, or a KL in the loss, every group is in the loss already");
  if (a.advantage != "passk") {
    if (a.passk_k != AlgorithmOptions().passk_k)
      context.problem("algorithm.passk_k", "only the advantage passk reads it");
  } else if (a.passk_k >= batch.group_size) {
    context.problem("algorithm.passk_k", "expected less than batch.group_size (" +
                                             std::to_string(batch.group_size) +
                                             "): all its subsets would be the group itself");
  }
}

void check_batch(const BatchOptions& batch, ReadContext& context) {
  const AdaptiveOptions& a = batch.adaptive;
  if (a.target_signal == 0) {
    const AdaptiveOptions usual;
    const std::pair<const char*, bool> keys[] = {
        {"min_rollouts", a.min_rollouts != usual.min_rollouts},
        {"max_rollouts", a.max_rollouts != usual.max_rollouts},
        {"top_up", a.top_up != usual.top_up},
        {"select_tasks", a.select_tasks != usual.select_tasks}};
    for (const auto& [key, changed] : keys)
      if (changed)
        context.problem(std::string("batch.adaptive.") + key, "needs batch.adaptive.target_signal");
    return;
  }
  if (a.min_rollouts > a.max_rollouts)
    context.problem("batch.adaptive.min_rollouts", "expected at most max_rollouts");
  if (batch.prompts * batch.group_size > a.max_rollouts)
    context.problem("batch.adaptive.max_rollouts",
                    "expected at least batch.prompts times batch.group_size (" +
                        std::to_string(batch.prompts * batch.group_size) + "), where it begins");
  if (batch.resample > 1)
    context.problem("batch.resample", "adaptive tops a step up by its signal; keep one of the two");
}

void check_critic(const AlgorithmOptions& a, const BatchOptions& batch, std::int64_t steps,
                  ReadContext& context) {
  if (context.failed("algorithm.advantage")) return;
  const std::string section = "algorithm.critic.";
  if (a.advantage != "gae") {
    for (const char* key : {"trunk", "learning_rate", "pretrain_steps", "epochs", "minibatches",
                            "value_clip", "gamma", "lambda_critic", "lambda_policy", "coefficient"})
      if (context.given(section + key))
        context.problem(section + key, "only the advantage gae has a critic");
    if (batch.group_size < 2 && !context.failed("batch.group_size"))
      context.problem("batch.group_size",
                      "the advantage " + a.advantage +
                          " compares a rollout with others of its group; write at least 2, or "
                          "algorithm.advantage: gae");
    return;
  }
  if (a.loss == "gspo")
    context.problem("algorithm.loss",
                    "gspo has one ratio a sequence, and gae an advantage for each token");
  if (batch.group_size < 2 && (batch.adaptive.target_signal > 0 || batch.resample > 1))
    context.problem(
        batch.resample > 1 ? "batch.resample" : "batch.adaptive.target_signal",
        "goes by the rewards that differ within a group, and batch.group_size is 1; write at "
        "least 2, or leave it out");
  if (steps > 0 && a.critic.pretrain_steps >= steps)
    context.problem(section + "pretrain_steps",
                    "the critic would learn alone in all of run.steps (" + std::to_string(steps) +
                        ") and the policy never");
  const CriticOptions usual;
  const bool shared = a.critic.trunk == "shared";
  const std::string one_update = "a shared trunk takes the policy's one update a step";
  if (shared && a.critic.epochs != usual.epochs) context.problem(section + "epochs", one_update);
  if (shared && a.critic.minibatches != usual.minibatches)
    context.problem(section + "minibatches", one_update);
  if (shared && a.epochs > 1) context.problem("algorithm.epochs", one_update);
  if (a.minibatch_prompts > 0)
    context.problem("algorithm.minibatch_prompts",
                    "with a critic the policy takes the rollouts of a step at once");
  if (shared && a.critic.value_clip != usual.value_clip)
    context.problem(section + "value_clip", one_update);
  if (!shared && a.critic.coefficient != usual.coefficient)
    context.problem(section + "coefficient", "only trunk: shared reads it");
}

void check_corrections(const AlgorithmOptions& a, std::int64_t max_lag, ReadContext& context) {
  const std::string path = "algorithm.corrections";
  std::set<CorrectionKind> kinds;
  int weights = 0;
  for (const Correction& c : a.corrections) {
    const CorrectionRule& rule = rule_of(c.kind);
    if (!kinds.insert(c.kind).second)
      context.problem(path, std::string(rule.name) + " stands in it twice");
    weights += rule.weighs ? 1 : 0;
  }
  if (weights > 1)
    context.problem(path, "token_tis and seq_tis would weigh the same mismatch twice; keep one");
  if (weights > 0 && a.anchor == "rollout" && a.loss != "reinforce") {
    context.problem(path,
                    "with anchor: rollout the ratio of the loss holds the mismatch already, and a "
                    "weight would count it twice; write anchor: old, or masks only");
  }
  const bool takes_ratio_to_sampler = a.loss != "reinforce" && a.anchor == "rollout";
  if (max_lag > 0 && weights == 0 && !takes_ratio_to_sampler)
    context.problem(path, "with policy.max_lag rollouts come from older policies, and neither " +
                              a.loss + " with anchor: " + a.anchor +
                              " nor a weight corrects for it; add token_tis or seq_tis, or take "
                              "another loss with anchor: rollout");
  if (a.loss == "reinforce" && (a.epochs > 1 || a.minibatch_prompts > 0))
    context.problem(a.epochs > 1 ? "algorithm.epochs" : "algorithm.minibatch_prompts",
                    "reinforce takes no ratio to the policy at the start of a step; one update a "
                    "step, or another loss");
  if (a.loss == "gspo" && kinds.contains(CorrectionKind::kTokenTis))
    context.problem(path, "gspo has one ratio a sequence; use seq_tis");
}

void check_kl(const AlgorithmOptions& a, ReadContext& context) {
  if (a.kl.coefficient == 0 && a.kl.form != profile_defaults(a.profile, a.loss).kl.form)
    context.problem("algorithm.kl.form", "needs a coefficient");
  if (a.kl.coefficient > 0 && a.kl.form == "k3_weighted" && a.anchor == "old")
    context.problem("algorithm.kl.form",
                    "k3_weighted weighs by the ratio to the policy that sampled; write anchor: "
                    "rollout, or k3");
}

void check_algorithm(const RunConfig& config, ReadContext& context) {
  const AlgorithmOptions& a = config.algorithm;
  check_loss(a, context);
  check_aggregation(a, context);
  check_advantage(a, config.batch, context);
  check_batch(config.batch, context);
  check_critic(a, config.batch, config.run.steps, context);
  check_compared_rewards(config, context);
  check_corrections(a, config.policy.max_lag, context);
  check_kl(a, context);
}

void check_budget(const std::string& path, const char* price_key, double price, double cap,
                  bool has_free, ReadContext& context) {
  if (cap == 0 && price == 0 && has_free)
    context.problem(path + ".free", "does nothing without a price and a cap");
  if (cap > 0 && price == 0)
    context.problem(path + "." + price_key, "with a cap, expected a number more than 0");
  if (cap == 0 && price > 0)
    context.problem(path + ".cap", "with a price, expected a number more than 0");
}

// Half of it stays: with more, a dear success would hardly be worth more than a failure.
void check_budgets(const RunConfig& config, ReadContext& context) {
  const RolloutOptions& r = config.rollout;
  check_budget("rollout.tool_budget", "penalty_per_call", r.tool_budget.penalty_per_call,
               r.tool_budget.cap, r.tool_budget.free > 0, context);
  check_budget("rollout.latency_budget", "penalty_per_second", r.latency_budget.penalty_per_second,
               r.latency_budget.cap, r.latency_budget.free.count() > 0, context);
  if (r.length_budget.cap == 0 && r.length_budget.limit > 0)
    context.problem("rollout.length_budget.limit", "needs rollout.length_budget.cap");
  if (r.length_budget.cap == 0 && r.length_budget.free > 0)
    context.problem("rollout.length_budget.free", "needs rollout.length_budget.cap");
  if (r.length_budget.cap > 0 && r.length_budget.limit <= r.length_budget.free)
    context.problem("rollout.length_budget.limit", "expected more than free");
  const double caps = r.tool_budget.cap + r.latency_budget.cap + r.length_budget.cap;
  const double success = config.grader.pass_reward();
  if (caps == 0 || caps <= success / 2) return;
  const char* last = r.length_budget.cap > 0    ? "length_budget"
                     : r.latency_budget.cap > 0 ? "latency_budget"
                                                : "tool_budget";
  context.problem(std::string("rollout.") + last + ".cap",
                  "the caps of all budgets, " + format_number(caps) +
                      ", are more than half of what a success earns (" + format_number(success) +
                      "): success has to dominate");
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

// A shut gate or a flag must not earn what a success earns.
void check_dominance(const GraderOptions& grader, ReadContext& context) {
  const double success = grader.pass_reward();
  if (grader.gate_value >= success)
    context.problem("grader.gate_value", "expected less than what a success earns (" +
                                             format_number(success) + "), found " +
                                             format_number(grader.gate_value));
  if (success <= 0)
    context.problem(
        "grader.pass_threshold",
        "expected more than 0, which is what a rollout earns that a rule zeroes (flags, "
        "rollout.on_limit), found " +
            format_number(success) +
            "; write reward: passed, or let the grader's scores begin at 0");
  for (const FlagAction& flag : grader.flags)
    if (flag.action == "penalize" && flag.value > 0)
      context.problem("grader.flags." + flag.flag,
                      "penalize adds its value to the reward: expected a negative one, found " +
                          format_number(flag.value));
}

void check_policy(const PolicyOptions& policy, ReadContext& context) {
  if (policy.gpu_cache_gb > 0 && policy.device != "cuda")
    context.problem("policy.gpu_cache_gb", "needs policy.device: cuda");
  if (policy.in_flight_updates || context.failed("policy.max_lag")) return;
  if (policy.max_lag == 0)
    context.problem("policy.in_flight_updates",
                    "needs policy.max_lag: without it no rollout meets newer weights");
  if (policy.lead_samples())
    context.problem("policy.in_flight_updates",
                    "needs policy.placement: workers: the lead learner's engine serves rollouts of "
                    "all workers, which hardly ever end together");
}

void check_second_grader(const RunConfig& config, ReadContext& context) {
  const std::string section = "grader.second";
  if (config.grader.second.url.empty()) {
    for (const auto& field : second_grader_fields())
      if (context.given(section + "." + std::string(field.key)))
        return context.problem(section + "." + std::string(field.key), "needs grader.second.url");
  } else if (config.grader.confirm == "never") {
    context.problem(section + ".url", "grader.confirm: never asks nobody; write rare or always");
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
  check_policy(config.policy, context);
  check_second_grader(config, context);
  check_dominance(config.grader, context);
  check_algorithm(config, context);
  check_budgets(config, context);
  check_lora(config, context);
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
  if (!context.failed("cluster.heartbeat_every") &&
      config.cluster.heartbeat_every * 2 > config.cluster.learner_timeout) {
    context.problem("cluster.learner_timeout", "expected at least twice cluster.heartbeat_every (" +
                                                   format_duration(config.cluster.heartbeat_every) +
                                                   ")");
  }
  if (!context.failed("cluster.stop_grace") && config.cluster.stop_before.count() > 0 &&
      config.cluster.stop_grace * 2 > config.cluster.stop_before) {
    context.problem("cluster.stop_before", "expected at least twice cluster.stop_grace (" +
                                               format_duration(config.cluster.stop_grace) +
                                               "), or 0s: what follows takes time too");
  }
  if (!config.data.canaries.empty() && config.data.valid.empty())
    context.problem("data.canaries", "they are tried with each evaluation: data.valid is not set");
  if (config.eval.every_steps > 0 && config.data.valid.empty() && !context.failed("data.valid")) {
    context.problem("eval.every", "there is nothing to evaluate on: data.valid is not set");
  }
}

}  // namespace rollcall
