// SPDX-License-Identifier: Apache-2.0
#include "configs/schema.h"

#include <algorithm>
#include <optional>

#include "model/lora.h"

namespace rollcall {
namespace {

constexpr double kSecond = 1000;
constexpr double kDay = 24 * 3600 * kSecond;
constexpr double kMebibyte = 1 << 20;

bool is_identifier(std::string_view text, std::string_view marks) {
  return !text.empty() && text.size() <= 64 &&
         std::all_of(text.begin(), text.end(), [&](unsigned char c) {
           return std::isalnum(c) || marks.find(static_cast<char>(c)) != std::string_view::npos;
         });
}

// A text of 1 to 64 letters, digits and some marks.
template <typename S>
Field<S> identifier(std::string_view key, std::string S::*member, std::string_view marks,
                    std::string_view meaning) {
  return value_field(
      key, member, "text", meaning,
      [marks](ReadContext& c, const YamlNode& n,
              const std::string& p) -> std::optional<std::string> {
        const auto name = c.read_text(n, p);
        if (!name || (is_identifier(*name, marks) && name->front() != '.')) return name;
        c.problem(n, p,
                  "expected 1 to 64 letters, digits or " + std::string(marks) + ", found " +
                      cited(*name));
        return {};
      },
      format_text);
}

std::vector<Field<FlagAction>> flag_fields() {
  return {
      choice("action", &FlagAction::action, {"zero", "penalize", "mask", "log"}, ""),
      number("value", &FlagAction::value, kAny, ""),
  };
}

void read_flag_action(ReadContext& context, const YamlEntry& entry, const std::string& path,
                      std::vector<FlagAction>& flags) {
  if (!is_identifier(entry.key, "_-.")) {
    context.problem(entry.value, path, cited(entry.key) + " is no flag name");
    return;
  }
  auto flag = std::find_if(flags.begin(), flags.end(),
                           [&](const FlagAction& f) { return f.flag == entry.key; });
  if (flag == flags.end()) flag = flags.insert(flag, {entry.key, "log", -1.0});
  const std::string place = child_path(path, entry.key);
  if (entry.value.kind == YamlNode::Kind::kScalar) {
    flag_fields().front().read(context, entry.value, place, *flag);
  } else {
    read_section(context, entry.value, place, flag_fields(), *flag);
  }
}

// `flags: {hacking: zero}` or `{hacking: {action: penalize, value: -1}}`.
Field<GraderOptions> flags_field() {
  Field<GraderOptions> field{
      .key = "flags",
      .type = "section of flag: action",
      .meaning =
          "What a flag in the grader's reply does: `zero` (reward 0 at most), `penalize` (adds "
          "`value`), `mask` (leaves the rollout out) or `log`. Long form: "
          "`hacking: {action: penalize, value: -1}`.",
      .read = {},
      .write = {}};
  field.read = [](ReadContext& context, const YamlNode& node, const std::string& path,
                  GraderOptions& out) {
    if (!context.check_section(node, path)) return;
    for (const YamlEntry& entry : node.entries) read_flag_action(context, entry, path, out.flags);
  };
  field.write = [](const GraderOptions& in, const std::string&, const AsWritten&) {
    std::string out;
    for (const FlagAction& flag : in.flags) {
      out += (out.empty() ? "" : ", ") + format_text(flag.flag) +
             ": {action: " + format_text(flag.action) + ", value: " + format_number(flag.value) +
             "}";
    }
    return "{" + out + "}";
  };
  return field;
}

// `gates: {tests: 1}`.
Field<GraderOptions> parts_field(std::string_view key,
                                 std::vector<GradePart> GraderOptions::*member, std::string type,
                                 std::string_view meaning) {
  Field<GraderOptions> field{
      .key = key, .type = std::move(type), .meaning = meaning, .read = {}, .write = {}};
  field.read = [member](ReadContext& context, const YamlNode& node, const std::string& path,
                        GraderOptions& out) {
    if (!context.check_section(node, path)) return;
    (out.*member).clear();
    for (const YamlEntry& entry : node.entries) {
      const auto value = context.read_number(entry.value, child_path(path, entry.key), kAny);
      if (value) (out.*member).push_back({entry.key, *value});
    }
  };
  field.write = [member](const GraderOptions& in, const std::string&, const AsWritten&) {
    std::string out;
    for (const GradePart& part : in.*member)
      out += (out.empty() ? "" : ", ") + format_text(part.name) + ": " + format_number(part.value);
    return "{" + out + "}";
  };
  return field;
}

}  // namespace

std::vector<Field<RunOptions>> run_fields() {
  using O = RunOptions;
  return {
      required(identifier("name", &O::name, "_-.", "Name of the run and of its folder.")),
      path("dir", &O::dir, PathBase::kCurrentFolder,
           "Folder of all runs; a relative one starts at the current folder."),
      integer("seed", &O::seed, kFromZero, "Every random draw follows from it."),
      integer("steps", &O::steps, kFromZero, "Optimizer steps to train."),
  };
}

std::vector<Field<ModelOptions>> model_fields() {
  using O = ModelOptions;
  const Field<O> written_out = section(
      "lora", &O::lora, lora_fields(),
      "The adapter that `train: lora` makes. What it adds to a weight is scaled by `alpha` / "
      "`rank`, with `rslora` by `alpha` / sqrt(`rank`).");
  Field<O> lora = written_out;
  // An adapter that is read brings its own shape, and full training has none.
  lora.write = [written_out](const O& in, const std::string& path, const AsWritten& as_written) {
    const bool used = in.train == "lora" && in.adapter.empty();
    return used ? written_out.write(in, path, as_written) : "{}";
  };
  return {
      required(path("path", &O::path, PathBase::kRunFile, "Hugging Face model directory.")),
      choice(
          "dtype", &O::dtype, {"float32", "bfloat16"},
          "Type of the policy's weights. `bfloat16`: sampler, learner and export use the float32 "
          "masters rounded to nearest even, and gradients go straight through to the masters. "
          "Products then take bfloat16 operands, twice as fast where the CPU or GPU multiplies "
          "them, and keys and values half the memory; sums, logits, gradients and moments are "
          "float32 in both."),
      choice("train", &O::train, {"full", "lora"},
             "`full`: every weight. `lora`: a low-rank adapter on frozen weights; needs less "
             "memory, and about ten times the learning rate."),
      lora,
      section("chat", &O::chat, chat_fields(), "What the model's chat template is told."),
      path("adapter", &O::adapter, PathBase::kRunFile,
           "PEFT directory whose LoRA adapter is trained further; empty: a fresh one."),
  };
}

std::vector<Field<ChatOptions>> chat_fields() {
  using O = ChatOptions;
  return {
      flag("enable_thinking", &O::enable_thinking,
           "`false`: Qwen3's templates open each turn with an empty thought. The others think as "
           "they please."),
      text("date_string", &O::date_string,
           "The date that Llama-3.x's templates state. Today's would change the prompts."),
  };
}

std::vector<Field<LoraOptions>> lora_fields() {
  using O = LoraOptions;
  const auto targets = lora_target_names();
  return {
      integer("rank", &O::rank, {1, 4096}, "32"),
      number("alpha", &O::alpha, {0, kUnbounded, true}, "32"),
      choices("targets", &O::targets, {targets.begin(), targets.end()}, "all"),
      flag("rslora", &O::rslora, "false"),
  };
}

std::vector<Field<DataOptions>> data_fields() {
  using O = DataOptions;
  return {
      path("train", &O::train, PathBase::kRunFile, "Training tasks (JSONL); required to train."),
      path("valid", &O::valid, PathBase::kRunFile, "Held-out tasks (JSONL); empty: no evaluation."),
      path("canaries", &O::canaries, PathBase::kRunFile,
           "Tasks that cannot be solved (JSONL), tried with each evaluation: what passes them "
           "exploits the grader (`alarms.canary`)."),
  };
}

std::vector<Field<ToolOptions>> tool_fields() {
  using O = ToolOptions;
  return {
      required(identifier("name", &O::name, "_-", "Function name, as in the tasks.")),
      required(url("url", &O::url, "Where calls are posted.")),
      headers("headers", &O::headers, &O::secrets,
              "Sent with every call. What `${NAME}` stands for is a secret."),
      duration("timeout", &O::timeout, {1, kDay}, "Longest wait for one reply."),
      size("max_output_bytes", &O::max_output_bytes, {1, 1024 * kMebibyte},
           "A larger reply is shown to the policy as an error."),
      integer("max_retries", &O::max_retries, {0, 100},
              "Further tries after a fault of the server or the network."),
      integer("max_concurrency", &O::max_concurrency, {1, 1e6},
              "Calls of this tool in flight from one worker."),
      number("rate_limit", &O::rate_limit, {0, 1e6},
             "Requests per second to this tool from one worker, retries included; 0: no limit."),
      duration("give_up_after", &O::give_up_after, {1, 365 * kDay},
               "How long the run waits for a server that stopped answering, before it ends with "
               "exit code 5."),
      enumeration("retry", &O::retry, {"always", "keyed", "never"},
                  "When a call may be sent twice: `keyed` only if the server honours "
                  "`Idempotency-Key`."),
      flag("send_item", &O::send_item, "Whether a call carries its task's row."),
  };
}

std::vector<Field<SecondGraderOptions>> second_grader_fields() {
  using O = SecondGraderOptions;
  return {
      url("url", &O::url, "none"),
      headers("headers", &O::headers, &O::secrets, "{}"),
      duration("timeout", &O::timeout, {1, kDay}, "10m"),
      integer("max_retries", &O::max_retries, {0, 100}, "3"),
      integer("max_concurrency", &O::max_concurrency, {1, 1e6}, "256"),
      number("rate_limit", &O::rate_limit, {0, 1e6}, "0"),
      duration("give_up_after", &O::give_up_after, {1, 365 * kDay}, "30m"),
  };
}

std::vector<Field<GraderOptions>> grader_fields() {
  using O = GraderOptions;
  Field<O> second =
      section("second", &O::second, second_grader_fields(),
              "An independent grader of the same contract, that `confirm` asks instead of the "
              "same one again; `{}`: none. Keys as those of the grader.");
  second.write = [written_out = second.write](const O& in, const std::string& path,
                                              const AsWritten& as_written) {
    return in.second.url.empty() ? "{}" : written_out(in, path, as_written);
  };
  return {
      choice("type", &O::type, {"endpoint"}, "`endpoint`: an HTTP server scores."),
      url("url", &O::url, "Where finished rollouts are posted; required to train."),
      headers("headers", &O::headers, &O::secrets,
              "Sent with every request. What `${NAME}` stands for is a secret."),
      duration("timeout", &O::timeout, {1, kDay}, "Longest wait for one reply."),
      integer("max_retries", &O::max_retries, {0, 100},
              "Further tries after a fault of the server or the network."),
      integer("max_concurrency", &O::max_concurrency, {1, 1e6},
              "Requests in flight from one worker."),
      number("rate_limit", &O::rate_limit, {0, 1e6},
             "Requests per second from one worker, retries included; 0: no limit."),
      duration("give_up_after", &O::give_up_after, {1, 365 * kDay}, "As of a tool."),
      number("gate_value", &O::gate_value, kAny,
             "Reward, at most, when any gate of the reply is false."),
      flags_field(),
      parts_field("gates", &O::gates, "section of sub-reward: least value",
                  "Gates besides those of the reply: one is false while that sub-reward is less. "
                  "Gates come before parts and score."),
      parts_field("parts", &O::parts, "section of sub-reward: weight",
                  "The weighted sum of these sub-rewards takes the score's place. Empty: the score "
                  "itself."),
      choice("reward", &O::reward, {"score", "passed"},
             "`score`: the score, or the sum of its parts. `passed`: 1 for a rollout that passes, "
             "0 for any other."),
      number("pass_threshold", &O::pass_threshold, kAny,
             "A rollout passes when its score reaches this, all its gates are true and neither a "
             "flag nor a limit makes its reward 0."),
      choice("confirm", &O::confirm, {"never", "rare", "always"},
             "Which passes are graded a second time. One that does not pass again gets the flag "
             "`unconfirmed`, which is `mask` unless `flags` says otherwise. `rare`: those of "
             "training tasks whose successes, by earlier rewards, are about one in a group of at "
             "least 8, and of tasks not tried before (docs/audit.md). `always`: all, held-out ones "
             "too."),
      second,
  };
}

std::vector<Field<ToolBudget>> tool_budget_fields() {
  using O = ToolBudget;
  return {
      integer("free", &O::free, kFromZero, "0"),
      number("penalty_per_call", &O::penalty_per_call, kFromZero, "0"),
      number("cap", &O::cap, kFromZero, "0"),
  };
}

std::vector<Field<LatencyBudget>> latency_budget_fields() {
  using O = LatencyBudget;
  return {
      duration("free", &O::free, {0, kDay}, "0s"),
      number("penalty_per_second", &O::penalty_per_second, kFromZero, "0"),
      number("cap", &O::cap, kFromZero, "0"),
  };
}

std::vector<Field<LengthBudget>> length_budget_fields() {
  using O = LengthBudget;
  return {
      integer("free", &O::free, kFromZero, "0"),
      integer("limit", &O::limit, kFromZero, "0"),
      number("cap", &O::cap, kFromZero, "0"),
  };
}

std::vector<Field<RolloutOptions>> rollout_fields() {
  using O = RolloutOptions;
  return {
      integer("max_turns", &O::max_turns, kFromOne, "Model turns."),
      integer("max_tool_calls", &O::max_tool_calls, kFromZero, "Tool calls in all."),
      integer("max_new_tokens", &O::max_new_tokens, kFromOne, "Sampled tokens per turn."),
      integer("context", &O::context, kFromOne, "Tokens in all, the prompt included."),
      integer("max_attempts", &O::max_attempts, {1, 100},
              "Attempts per rollout when the infrastructure faults."),
      choice("on_limit", &O::on_limit, {"grade", "zero", "mask", "mask_loss"},
             "What a rollout that meets a limit gets: its grade, reward 0, no part in the update, "
             "or its grade in the baseline of the others but no gradient of its own."),
      choice("on_void_turn", &O::on_void_turn, {"grade", "zero", "mask", "mask_loss"},
             "The same for a rollout with a turn that neither acts nor answers: a tool call that "
             "cannot be read, or an empty final answer."),
      choice("on_infra_exhausted", &O::on_infra_exhausted, {"discard", "zero"},
             "What a rollout gets whose tools failed in every attempt: no part in the update, or "
             "reward 0, for tools that the policy itself can crash."),
      section("tool_budget", &O::tool_budget, tool_budget_fields(),
              "What a success pays for tool calls beyond the `free` ones, at most `cap`. Failures "
              "pay nothing and earn at most what is left to a success that pays all caps. 0: no "
              "budget."),
      section("latency_budget", &O::latency_budget, latency_budget_fields(),
              "The same for the time that it waits for tools. The reward then follows the servers' "
              "load too."),
      section("length_budget", &O::length_budget, length_budget_fields(),
              "The same for sampled tokens: from nothing at `free` to `cap` at `limit`."),
      flag("check_reencoding", &O::check_reencoding,
           "For debugging: render and encode the conversation anew after each turn, as a server "
           "that is sent messages would, and log where that differs from the tokens that the "
           "policy saw. The shares are in the journal's sub_rewards as `reencoding.*`."),
  };
}

std::vector<Field<AdaptiveOptions>> adaptive_fields() {
  using O = AdaptiveOptions;
  return {
      number("target_signal", &O::target_signal, kFromZero, "0"),
      integer("min_rollouts", &O::min_rollouts, {2, 1e7}, "128"),
      integer("max_rollouts", &O::max_rollouts, {2, 1e7}, "16384"),
      flag("top_up", &O::top_up, "true"),
      flag("select_tasks", &O::select_tasks, "true"),
  };
}

std::vector<Field<BatchOptions>> batch_fields() {
  using O = BatchOptions;
  return {
      integer("prompts", &O::prompts, {1, 1e6}, "Groups per step: one task each."),
      integer("group_size", &O::group_size, {1, 1e5},
              "Rollouts per group; 1 only with the advantage gae."),
      integer(
          "resample", &O::resample, kFromOne,
          "Most rounds of `prompts` groups in a step, until so many of its groups have a signal "
          "(DAPO's dynamic sampling); 1: one round."),
      section("adaptive", &O::adaptive, adaptive_fields(),
              "Sizes each step by its signal, about the number of its rarer outcomes, so that rare "
              "successes make a gradient and frequent ones cost little. `target_signal` is what a "
              "step aims at, 0: off; `prompts` and `group_size` are where it begins. A step that "
              "ends with less, at `max_rollouts`, moves the policy less. `top_up`: a step that has "
              "too little samples more before its update. `select_tasks`: tasks that are always or "
              "never solved are drawn less often."),
  };
}

std::vector<Field<AlarmRule>> alarm_rule_fields() {
  return {
      number("limit", &AlarmRule::limit, kFromZero, ""),
      enumeration("action", &AlarmRule::action, {"off", "warn", "stop"}, ""),
  };
}

// `entropy: 0.2`, `entropy: off` or `entropy: {limit: 0.2, action: stop}`.
Field<AlarmOptions> alarm_rule(std::string_view key, AlarmRule AlarmOptions::*member,
                               std::string_view meaning) {
  Field<AlarmOptions> field{.key = key,
                            .type = "number, `off`, `warn`, `stop`, or section of limit and action",
                            .meaning = meaning,
                            .read = {},
                            .write = {}};
  field.read = [member](ReadContext& context, const YamlNode& node, const std::string& path,
                        AlarmOptions& out) {
    const auto fields = alarm_rule_fields();
    const bool is_word = node.kind == YamlNode::Kind::kScalar && !node.text.empty() &&
                         std::isalpha(static_cast<unsigned char>(node.text.front())) != 0;
    if (node.kind == YamlNode::Kind::kScalar)
      fields[is_word ? 1 : 0].read(context, node, path, out.*member);
    else
      read_section(context, node, path, fields, out.*member);
  };
  field.write = [member](const AlarmOptions& in, const std::string& path, const AsWritten& w) {
    std::string out;
    for (const auto& inner : alarm_rule_fields())
      out += (out.empty() ? "" : ", ") + std::string(inner.key) + ": " +
             inner.write(in.*member, path, w);
    return "{" + out + "}";
  };
  return field;
}

std::vector<Field<AlarmOptions>> alarm_fields() {
  using O = AlarmOptions;
  return {
      number("logprob_gap", &O::logprob_gap, kFromZero,
             "Mean difference in nats between the log-probabilities of sampler and learner, over "
             "the sampled tokens of a step. The step is not applied. 0: off."),
      number("discard_share", &O::discard_share, {0, 1},
             "Share of a step's rollouts that faults may leave out. With more the step is not "
             "applied: what is left may be the easy tasks. 0: off."),
      number("discard_reward_z", &O::discard_reward_z, kFromZero,
             "Warns, and goes on, when groups that lost rollouts to faults have other rewards than "
             "groups that did not, by so many standard errors. 0: off."),
      number("grad_norm", &O::grad_norm, kFromZero,
             "An update whose gradient norm, before clipping, is so many times the usual one is "
             "left out; after three in a row the policy goes back to the newest checkpoint. 0: "
             "off."),
      alarm_rule("signal_share", &O::signal_share,
                 "Less than this share of the groups of five steps has a signal. This and the next "
                 "ones warn once as they begin, or with `stop` end the run behind a checkpoint "
                 "with exit code 4; docs/alarms.md."),
      alarm_rule("limit_share", &O::limit_share,
                 "More than this share of the rollouts of five steps met a limit."),
      alarm_rule("ess", &O::ess,
                 "The sampled tokens are worth less than this share of their number to the learner "
                 "(`mismatch_ess_fraction`)."),
      alarm_rule("mismatch_k3", &O::mismatch_k3,
                 "More nats a token between sampler and learner (`mismatch_k3_nats_mean`)."),
      alarm_rule("clip", &O::clip, "More than this share of the tokens is clipped."),
      alarm_rule("entropy", &O::entropy, "Entropy below this share of the first step's."),
      alarm_rule("reward_spread", &O::reward_spread,
                 "In 20 steps the deviation of rewards lost more than this share, and their mean "
                 "did not rise."),
      alarm_rule("reward_jump", &O::reward_jump,
                 "The mean reward is so many standard errors above that of the ten steps before."),
      alarm_rule("second_grader", &O::second_grader,
                 "Held-out pass@1 rose by so many standard errors since the first evaluation, and "
                 "fell by `grader.second`."),
      alarm_rule("canary", &O::canary,
                 "More than this share of the rollouts of `data.canaries` passes."),
  };
}

std::vector<Field<PolicyOptions>> policy_fields() {
  using O = PolicyOptions;
  return {
      choice("placement", &O::placement, {"workers", "learners"},
             "Which ranks sample tokens. `workers`: each with an engine and a cache of its own. "
             "`learners`: the lead learner samples for all workers, which then run agents alone: "
             "for one strong machine and many small ones, and where memory is scarce."),
      choice(
          "device", &O::device, {"cpu", "cuda"},
          "Where tokens are sampled. `cuda`: on this host's GPUs, the n-th process on the n-th, "
          "counted round; learners still compute on CPUs, and a run is not repeated bit for bit."),
      number(
          "gpu_cache_gb", &O::gpu_cache_gb, kFromZero,
          "GB of a GPU's memory that an engine takes for keys and values; 0: nine tenths of what "
          "is free. To be set where several workers share a GPU."),
      integer("max_lag", &O::max_lag, {0, 64},
              "Policy versions that a sampled token may be behind the one that learns from it. 0: "
              "workers wait while the learners update, and a run can be repeated bit for bit. "
              "Above: so many steps are sampled ahead, and rollouts go on with newer weights as "
              "soon as there are any, if `in_flight_updates` lets them."),
      flag("in_flight_updates", &O::in_flight_updates,
           "With `max_lag`: rollouts under way go on with newer weights. `false`: a worker takes "
           "them up once those have ended, and begins none before, so that one version sampled "
           "all of a rollout."),
  };
}

std::vector<Field<ClusterOptions>> cluster_fields() {
  using O = ClusterOptions;
  return {
      integer("learners", &O::learners, {1, 1e5}, "Ranks that update the policy."),
      integer("workers", &O::workers, {1, 1e5}, "Ranks that make rollouts."),
      integer("rollouts_per_worker", &O::rollouts_per_worker, {1, 1e6},
              "Rollouts that a worker runs at once."),
      duration("heartbeat_every", &O::heartbeat_every, {10, 3600 * kSecond},
               "How often a worker reports."),
      duration("worker_timeout", &O::worker_timeout, {100, kDay},
               "Silence after which a worker counts as dead and its rollouts go to others."),
      duration("learner_timeout", &O::learner_timeout, {100, kDay},
               "Silence of a learner after which the others give up and the run ends with exit "
               "code 3. It has to be longer than one learner's part of an update and than writing "
               "a checkpoint."),
      duration("stop_before", &O::stop_before, {0, kDay},
               "In a Slurm job: how long before its end the run stops in order, so that it can go "
               "on in another; 0s: it does not look at the clock."),
      duration("stop_grace", &O::stop_grace, {0, kDay},
               "How long a run that stops waits for rollouts in flight. Those that do not end in "
               "time are made again when the run goes on."),
  };
}

std::vector<Field<CheckpointOptions>> checkpoint_fields() {
  using O = CheckpointOptions;
  return {
      steps("every", &O::every_steps, "Distance of checkpoints; 0: only at the end."),
      integer("keep", &O::keep, kFromOne, "Newest checkpoints that are kept."),
  };
}

std::vector<Field<EvalOptions>> eval_fields() {
  using O = EvalOptions;
  return {
      steps("every", &O::every_steps, "Distance of evaluations; 0: only before and after."),
      integer("samples", &O::samples, {1, 1e5}, "Rollouts per held-out task."),
      integer("tasks", &O::tasks, kFromZero, "Held-out tasks used, in file order; 0: all."),
  };
}

std::vector<Field<SftOptions>> sft_fields() {
  using O = SftOptions;
  return {
      path("demonstrations", &O::demonstrations, PathBase::kRunFile,
           "JSONL rows with whole conversations in `messages`; required for sft."),
      integer("steps", &O::steps, kFromZero, "Optimizer steps."),
      integer("batch", &O::batch, {1, 1e6}, "Demonstrations per step."),
      number("learning_rate", &O::learning_rate, kUnit, "Of AdamW, after the warm-up."),
      integer("warmup_steps", &O::warmup_steps, kFromZero, "Linear rise of the learning rate."),
      number("weight_decay", &O::weight_decay, kFromZero, "Decoupled; not for norms and biases."),
      integer("seed", &O::seed, kFromZero, "Order of demonstrations and random weights."),
      path("out", &O::out, PathBase::kRunFile,
           "Hugging Face directory to write; required for sft."),
      path("adapter_out", &O::adapter_out, PathBase::kRunFile,
           "PEFT directory to write as well, with `model.train: lora`; `out` is the merged model."),
      flag("from_scratch", &O::from_scratch,
           "Random weights of the shape in model.path's config.json."),
  };
}

}  // namespace rollcall
