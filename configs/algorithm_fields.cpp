// SPDX-License-Identifier: Apache-2.0
#include "configs/schema.h"
#include "trainer/advantages.h"
#include "trainer/corrections.h"
#include "trainer/losses.h"

namespace rollcall {
namespace {

constexpr Range kAboveZero{0, kUnbounded, true};
constexpr Range kBelowOne{0, 1, false, true};

std::vector<std::string_view> names(std::span<const std::string_view> list) {
  return {list.begin(), list.end()};
}

std::vector<std::string_view> correction_names() {
  std::vector<std::string_view> list;
  for (const CorrectionRule& rule : correction_rules()) list.push_back(rule.name);
  return list;
}

// Bounds of a ratio hold 1, or they would act on policies that agree.
std::vector<Field<Correction>> correction_fields(const CorrectionRule& rule) {
  std::vector<Field<Correction>> fields{{.key = "kind",
                                         .type = {},
                                         .meaning = {},
                                         .read = [](auto&&...) {},  // read_correction has read it
                                         .write = {}}};
  if (!rule.low_key.empty()) fields.push_back(number(rule.low_key, &Correction::low, kUnit, ""));
  const bool of_ratio = rule.high_key != "max";
  fields.push_back(number(rule.high_key, &Correction::high, of_ratio ? kFromOne : kAboveZero, ""));
  return fields;
}

// `geo_mask` or `{kind: geo_mask, low: 0.99, high: 1.01}`.
void read_correction(ReadContext& context, const YamlNode& node, const std::string& path,
                     std::vector<Correction>& out) {
  const bool is_section = node.kind == YamlNode::Kind::kMap;
  const YamlEntry* kind = is_section ? node.find("kind") : nullptr;
  if (is_section && kind == nullptr) {
    context.problem(node, path, "expected a `kind`");
    return;
  }
  const auto name =
      context.read_choice(kind != nullptr ? kind->value : node, path, correction_names());
  if (!name) return;
  Correction& correction = out.emplace_back(correction_of(*name));
  if (is_section)
    read_section(context, node, path, correction_fields(rule_of(correction.kind)), correction);
}

std::string written(const Correction& correction) {
  const CorrectionRule& rule = rule_of(correction.kind);
  std::string out = "{kind: " + format_text(rule.name);
  if (!rule.low_key.empty())
    out.append(", ").append(rule.low_key).append(": ").append(format_number(correction.low));
  return out.append(", ").append(rule.high_key).append(": ") + format_number(correction.high) + "}";
}

// `auto` or a number.
Field<CriticOptions> lambda_policy_field() {
  return value_field(
      "lambda_policy", &CriticOptions::lambda_policy, "`auto` or number from 0 to 1", "auto",
      [](ReadContext& c, const YamlNode& n,
         const std::string& p) -> std::optional<std::optional<double>> {
        if (n.kind == YamlNode::Kind::kScalar && n.text == "auto") return std::optional<double>();
        const auto value = c.read_number(n, p, kUnit);
        return value ? std::optional(value) : std::nullopt;
      },
      [](const std::optional<double>& value) { return value ? format_number(*value) : "auto"; });
}

std::vector<Field<CriticOptions>> critic_fields() {
  using O = CriticOptions;
  return {
      choice("trunk", &O::trunk, {"own", "shared"}, "own"),
      number("learning_rate", &O::learning_rate, kUnit, "2e-6"),
      integer("pretrain_steps", &O::pretrain_steps, kFromZero, "10"),
      integer("epochs", &O::epochs, {1, 1000}, "1"),
      integer("minibatches", &O::minibatches, {1, 1e6}, "4"),
      number("value_clip", &O::value_clip, kFromZero, "0.2"),
      number("gamma", &O::gamma, kUnit, "1"),
      number("lambda_critic", &O::lambda_critic, kUnit, "1"),
      lambda_policy_field(),
      number("coefficient", &O::coefficient, kFromZero, "0.1"),
  };
}

std::vector<Field<KlSection>> kl_fields() {
  using O = KlSection;
  return {
      number("coefficient", &O::coefficient, kFromZero, "0"),
      choice("form", &O::form, {"k1_reward", "k2", "k3", "k3_weighted"}, "k1_reward"),
  };
}

Field<AlgorithmOptions> critic_field() {
  const Field<AlgorithmOptions> written_out = section(
      "critic", &AlgorithmOptions::critic, critic_fields(),
      "The critic of the advantage gae (docs/algorithms.md). `trunk`: `own` is a copy of the "
      "initial policy, full or an adapter as `model.train` says; `shared` puts a value head on the "
      "policy. "
      "`learning_rate`: of the critic, with `algorithm.warmup_steps`. `pretrain_steps`: the first "
      "steps, in which the critic learns alone; the policy's warm-up comes after them. "
      "`epochs`, `minibatches`: how often an own trunk goes through a step's rollouts, and in how "
      "many optimizer steps each time. `value_clip`: how far these may move a value; 0: any. "
      "`lambda_policy`: `auto` is 1 - 1 / (0.05 * sampled tokens), at least 0. `coefficient`: "
      "weight of the value gradient in a shared trunk.");
  Field<AlgorithmOptions> field = written_out;
  field.write = [written_out](const AlgorithmOptions& in, const std::string& path,
                              const AsWritten& as_written) {
    return in.advantage == "gae" ? written_out.write(in, path, as_written) : "{}";
  };
  return field;
}

Field<AlgorithmOptions> corrections_field() {
  Field<AlgorithmOptions> field{
      .key = "corrections",
      .type = "list of corrections",
      .meaning =
          "Weights and masks against the gap between sampler and learner, from the learner's "
          "log-probabilities at the start of the step (one more forward pass): "
          "`[geo_mask]`, or with bounds `[{kind: geo_mask, low: 0.99, high: 1.01}]`. Kinds "
          "and bounds: docs/algorithms.md.",
      .read = {},
      .write = {}};
  field.read = [](ReadContext& context, const YamlNode& node, const std::string& path,
                  AlgorithmOptions& out) {
    if (node.kind == YamlNode::Kind::kNull) return;
    if (node.kind != YamlNode::Kind::kSequence) {
      context.problem(node, path, "expected a list");
      return;
    }
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      const std::string place = child_path(path, std::to_string(i));
      context.note(place, node.items[i].position);
      read_correction(context, node.items[i], place, out.corrections);
    }
  };
  field.write = [](const AlgorithmOptions& in, const std::string&, const AsWritten&) {
    std::string out;
    for (const Correction& correction : in.corrections)
      out += (out.empty() ? "" : ", ") + written(correction);
    return "[" + out + "]";
  };
  return field;
}

Field<AlgorithmOptions> activation_checkpointing_field() {
  return value_field(
      "activation_checkpointing", &AlgorithmOptions::activation_checkpointing,
      "`auto`, true or false",
      "Keep only each layer's input and compute the layer again in the backward pass: less memory, "
      "about a third more time, the same bits. `auto`: where keeping them would take more than "
      "half "
      "of the memory that is available.",
      [](ReadContext& c, const YamlNode& n,
         const std::string& p) -> std::optional<std::optional<bool>> {
        if (n.kind == YamlNode::Kind::kScalar && n.text == "auto") return std::optional<bool>();
        const auto value = c.read_flag(n, p);
        return value ? std::optional(value) : std::nullopt;
      },
      [](const std::optional<bool>& value) { return !value   ? "auto"
                                                    : *value ? "true"
                                                             : "false"; });
}

}  // namespace

std::vector<Field<AlgorithmOptions>> algorithm_fields() {
  using O = AlgorithmOptions;
  return {
      choice("profile", &O::profile, profile_names(),
             "Named set of defaults for this section: docs/algorithms.md."),
      choice("advantage", &O::advantage, names(advantage_names()),
             "How a rollout is compared with its group, or gae: each token with a critic's values "
             "(docs/algorithms.md)."),
      integer("passk_k", &O::passk_k, kFromOne,
              "passk: rollouts of which the best counts; less than batch.group_size."),
      critic_field(),
      choice(
          "loss", &O::loss, names(loss_names()),
          "Policy loss (docs/algorithms.md). Sets clip_low, clip_high and dual_clip: cispo 1, 4, "
          "0; ppo_clip 0.2, 0.28, 3; gspo 0.0003, 0.0004, 0 and the aggregation "
          "seq_mean_token_mean, its only one."),
      number("clip_low", &O::clip_low, kUnit,
             "ppo_clip, cispo, gspo: the ratio is kept above 1 - clip_low."),
      number("clip_high", &O::clip_high, kFromZero,
             "ppo_clip, cispo, gspo: the ratio is kept below 1 + clip_high."),
      number("dual_clip", &O::dual_clip, kFromZero,
             "ppo_clip: bound of the loss, in advantages, where the advantage is negative; 0: "
             "none, else more than 1."),
      number("divergence", &O::divergence, {0, 1, true},
             "dppo_tv: a token whose probability has moved by more, the way its advantage pushes, "
             "gives no gradient."),
      number("ratio_cap", &O::ratio_cap, kFromOne, "dppo_tv: largest weight of a token."),
      number("tau_positive", &O::tau_positive, kAboveZero,
             "sapo: temperature where the advantage is positive."),
      number("tau_negative", &O::tau_negative, kAboveZero, "sapo: temperature elsewhere."),
      choice("anchor", &O::anchor, {"rollout", "old"},
             "The policy in the ratio's denominator: the one that sampled, with the sampler's "
             "log-probabilities, or the learner's at the start of the step (the ratio is 1 then, "
             "until a step's second update)."),
      corrections_field(),
      section("kl", &O::kl, kl_fields(),
              "A price on going away from the policy that the run began with: `coefficient` times "
              "the KL in nats, from a second copy of the weights. `k1_reward` takes it off each "
              "rollout's reward, before rollouts are compared; `k2`, `k3` and `k3_weighted` add it "
              "to the loss of each token (docs/algorithms.md). 0: none, and no copy."),
      choice("aggregation", &O::aggregation, names(aggregation_names()),
             "How token losses become one number."),
      number("aggregation_constant", &O::aggregation_constant, kAboveZero,
             "Divisor of seq_mean_token_sum_const."),
      choice(
          "denominator", &O::denominator, {"kept", "all"},
          "What the step's loss is a mean over. `kept`: the groups that it learns from, so that a "
          "step moves as far however few they are. `all`: groups without a signal too, which "
          "makes the gradient that of the mean reward; it fades with the share that has one."),
      number("learning_rate", &O::learning_rate, kUnit, "Of AdamW, after the warm-up."),
      number("beta1", &O::beta1, kBelowOne, "Decay of AdamW's first moment."),
      number("beta2", &O::beta2, kBelowOne, "Decay of AdamW's second moment."),
      number("epsilon", &O::epsilon, {0, 1, true, false}, "Added to AdamW's denominator."),
      number("weight_decay", &O::weight_decay, kFromZero, "Decoupled; not for norms and biases."),
      integer("warmup_steps", &O::warmup_steps, kFromZero, "Linear rise of the learning rate."),
      number("max_grad_norm", &O::max_grad_norm, kFromZero,
             "Global L2 norm above which a gradient is scaled down; 0: no clipping."),
      integer("epochs", &O::epochs, {1, 1000},
              "How often the policy goes through the rollouts of a step. More makes more of rare "
              "successes, and moves further from the policy that sampled them: see the clips."),
      integer("minibatch_prompts", &O::minibatch_prompts, kFromZero,
              "Groups with a signal that make one optimizer step; a step of the run then takes "
              "several. 0: all at once. Large batches learn from fewer rollouts so."),
      integer("microbatch_tokens", &O::microbatch_tokens, kFromOne,
              "Packed tokens per forward and backward pass. Changes memory, not the update."),
      activation_checkpointing_field(),
  };
}

}  // namespace rollcall
