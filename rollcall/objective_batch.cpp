// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "rollcall/objective_replies.h"
#include "trainer/corrections.h"
#include "trainer/critic.h"
#include "trainer/kl.h"
#include "trainer/losses.h"
#include "trainer/mismatch.h"

namespace rollcall {
namespace {

using nlohmann::json;
using Matrix = std::vector<std::vector<double>>;

std::vector<double> numbers(const at::Tensor& values) {
  const at::Tensor host = values.detach().to(at::kDouble).contiguous();
  const auto* value = host.const_data_ptr<double>();
  return {value, value + host.numel()};
}

// The rows of a request's matrices [B, T] where its `mask` is not 0, flattened. `source` must
// outlive it.
class MaskedRows {
 public:
  explicit MaskedRows(const json& source)
      : source_(source), mask_(source.at("mask").get<Matrix>()) {
    for (std::size_t i = 0; i < mask_.size(); ++i) {
      for (std::size_t t = 0; t < mask_[i].size(); ++t) {
        if (mask_[i][t] == 0) continue;
        places_.emplace_back(i, t);
        sequence_.push_back(static_cast<std::int64_t>(i));
      }
    }
  }

  std::int64_t rows() const { return static_cast<std::int64_t>(mask_.size()); }
  const Matrix& mask() const { return mask_; }
  at::Tensor sequence() const { return at::tensor(sequence_, at::kLong); }

  Matrix matrix(const char* name) const {
    Matrix values = source_.at(name).get<Matrix>();
    check_rows(values.size(), name);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (values[i].size() != mask_[i].size())
        bad_input("row " + std::to_string(i) + " of " + name + " differs in length from mask");
    }
    return values;
  }

  at::Tensor flat(const Matrix& values) const {  // [N]
    std::vector<double> out;
    for (const auto& [i, t] : places_) out.push_back(values[i][t]);
    return at::tensor(out, at::kDouble);
  }
  at::Tensor flat(const char* name) const { return flat(matrix(name)); }

  template <typename T>
  std::vector<T> of_rows(const char* name) const {
    auto values = source_.at(name).get<std::vector<T>>();
    check_rows(values.size(), name);
    return values;
  }

  // [N] back to [B, T], 0 where the mask is.
  Matrix unflat(const at::Tensor& flat) const {
    Matrix out;
    for (const auto& row : mask_) out.emplace_back(row.size(), 0.0);
    const std::vector<double> values = numbers(flat);
    for (std::size_t n = 0; n < places_.size(); ++n)
      out[places_[n].first][places_[n].second] = values[n];
    return out;
  }

 private:
  void check_rows(std::size_t rows, const char* name) const {
    if (rows != mask_.size()) bad_input(std::string(name) + " and mask differ in rows");
  }

  const json& source_;
  Matrix mask_;
  std::vector<std::pair<std::size_t, std::size_t>> places_;
  std::vector<std::int64_t> sequence_;
};

std::vector<std::int64_t> renumbered(const std::vector<std::int64_t>& groups) {
  std::map<std::int64_t, std::int64_t> seen;
  std::vector<std::int64_t> out;
  for (std::int64_t group : groups) {
    const auto next = static_cast<std::int64_t>(seen.size());
    out.push_back(seen.try_emplace(group, next).first->second);
  }
  return out;
}

double optional_number(const json& object, const char* key, double otherwise) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? otherwise : found->get<double>();
}

KlOptions read_kl(const json& config) {
  const auto kl = config.find("kl");
  if (kl == config.end() || kl->is_null()) return {};
  return {.kind = supported(kl_kind, kl->at("estimator").get_ref<const std::string&>()),
          .coef = kl->at("coef").get<double>(),
          .importance_weighted = kl->value("importance_weighted", false)};
}

LossOptions read_loss_options(const json& config) {
  LossOptions options;
  options.kind = supported(loss_kind, config.at("loss").get_ref<const std::string&>());
  options.aggregation =
      supported(aggregation_kind, config.at("aggregation").get_ref<const std::string&>());
  options.constant = optional_number(config, "const", 1);
  if (options.kind == LossKind::kDppoTv) {
    options.divergence = config.at("divergence").get<double>();
    options.ratio_cap = optional_number(config, "ratio_cap", options.ratio_cap);
  } else if (options.kind == LossKind::kSapo) {
    options.tau_positive = config.at("tau_pos").get<double>();
    options.tau_negative = config.at("tau_neg").get<double>();
  } else if (options.kind != LossKind::kReinforce) {
    options.clip_low = config.at("clip_low").get<double>();
    options.clip_high = config.at("clip_high").get<double>();
  }
  options.dual_clip = optional_number(config, "dual_clip", 0);
  options.kl = read_kl(config);
  return options;
}

std::vector<Correction> read_corrections(const json& config) {
  std::vector<Correction> corrections;
  for (const json& one : config.value("corrections", json::array())) {
    Correction c = supported(correction_of, one.at("kind").get_ref<const std::string&>());
    const CorrectionRule& rule = rule_of(c.kind);
    if (!rule.low_key.empty()) c.low = one.at(std::string(rule.low_key)).get<double>();
    c.high = one.at(std::string(rule.high_key)).get<double>();
    corrections.push_back(c);
  }
  return corrections;
}

}  // namespace

json policy_reply(const json& line) {
  const json& config = line.at("config");
  const LossOptions options = read_loss_options(config);
  const MaskedRows batch(line.at("batch"));
  const at::Tensor logprobs = batch.flat("logp").set_requires_grad(true);
  const at::Tensor sequence = batch.sequence();
  const auto corrected = apply_corrections(
      read_corrections(config), batch.flat("old") - batch.flat("mu"), sequence, batch.rows());
  const at::Tensor& kept = corrected.kept;
  const ActionTokens tokens = select_tokens(
      {.anchor_logprobs = batch.flat(config.value("anchor", "old") == "rollout" ? "mu" : "old"),
       .advantages =
           at::tensor(batch.of_rows<double>("adv"), at::kDouble).index_select(0, sequence),
       .sequence = sequence,
       .prompt = at::tensor(renumbered(batch.of_rows<std::int64_t>("group")), at::kLong)},
      kept);
  LossInputs inputs{.weights = corrected.weights, .reference_logprobs = {}};
  if (options.kl.coef != 0) inputs.reference_logprobs = batch.flat("ref").index_select(0, kept);
  const LossDenominators denominators = count_tokens(tokens);
  const LossStats stats =
      policy_loss(tokens, logprobs.index_select(0, kept), denominators, options, inputs);
  stats.loss.backward();
  const double active = std::max(1.0, denominators.tokens);
  return {{"loss", stats.loss.item().toDouble()},
          {"grad", batch.unflat(logprobs.grad())},
          {"metrics",
           {{"clip_high_fraction", stats.clip_high_fraction_sum / active},
            {"clip_low_fraction", stats.clip_low_fraction_sum / active},
            {"active_tokens", static_cast<std::int64_t>(denominators.tokens)},
            {"active_sequences", static_cast<std::int64_t>(denominators.sequences)}}}};
}

json kl_reply(const json& line) {
  const KlKind kind = supported(kl_kind, line.at("estimator").get_ref<const std::string&>());
  const MaskedRows batch(line.at("batch"));
  const at::Tensor terms = kl_terms(kind, batch.flat("logp"), batch.flat("ref"));
  const auto tokens = static_cast<double>(std::max<std::int64_t>(1, terms.numel()));
  return {{"per_token", batch.unflat(terms)},
          {"token_mean", terms.sum().item().toDouble() / tokens}};
}

json mismatch_reply(const json& line) {
  const MaskedRows batch(line.at("batch"));
  const at::Tensor log_ratio = batch.flat("old") - batch.flat("mu");
  const Mismatch mismatch = measure_mismatch(log_ratio);
  const auto ratios = sequence_ratios(log_ratio, batch.sequence(), batch.rows());
  const at::Tensor weights = at::clamp(at::exp(clamp_log_ratio(log_ratio)), 0, 2);
  return {{"token_tis_weights_cap_2", batch.unflat(weights)},
          {"sequence_ratio", numbers(ratios.product)},
          {"geometric_mean_ratio", numbers(ratios.geometric_mean)},
          {"k3_mean", mismatch.k3_mean()},
          {"chi2_token", mismatch.chi2_mean()},
          {"mean_abs_log_ratio", mismatch.gap_mean()},
          {"max_abs_log_ratio", mismatch.gap_max},
          {"ess_fraction_of_capped_weights", mismatch.ess_fraction()}};
}

json critic_reply(const json& line) {
  const MaskedRows batch(line);
  const Matrix rewards = batch.matrix("rewards"), values = batch.matrix("values");
  Matrix advantages, returns;
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::vector<std::uint8_t> is_action;
    for (double mark : batch.mask()[i]) is_action.push_back(mark != 0 ? 1 : 0);
    auto row =
        generalized_advantages(rewards[i], values[i], is_action, line.at("gamma").get<double>(),
                               line.at("lambda").get<double>());
    advantages.push_back(std::move(row.advantages));
    returns.push_back(std::move(row.returns));
  }
  const at::Tensor current = batch.flat("new_values").set_requires_grad(true);
  const at::Tensor loss =
      value_loss(current, batch.flat(values), batch.flat(returns),
                 optional_number(line, "value_clip", 0), static_cast<double>(current.numel()));
  loss.backward();
  return {{"advantages", advantages},
          {"returns", returns},
          {"value_loss", loss.item().toDouble()},
          {"value_grad", batch.unflat(current.grad())},
          {"explained_variance",
           explained_variance(numbers(batch.flat(values)), numbers(batch.flat(returns)))}};
}

}  // namespace rollcall
