// SPDX-License-Identifier: Apache-2.0
#include "trainer/aggregation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>

#include "comms/error.h"
#include "trainer/names.h"

namespace rollcall {
namespace {

// In the order of Aggregation.
constexpr std::array<std::string_view, 4> kAggregationNames{
    "token_mean", "seq_mean_token_mean", "seq_mean_token_sum_const", "prompt_mean"};

void require(bool holds, const char* what) {
  if (!holds) throw Error(std::string("policy loss: ") + what, "this is a bug in the packing");
}

double inverse(double count) { return count > 0 ? 1 / count : 0; }

std::vector<std::int64_t> on_host(const at::Tensor& indices) {
  const at::Tensor host = indices.to(at::kCPU, at::kLong).contiguous();
  const auto* values = host.const_data_ptr<std::int64_t>();
  return {values, values + host.numel()};
}

double count_positive(const std::vector<double>& counts) {
  return static_cast<double>(
      std::count_if(counts.begin(), counts.end(), [](double count) { return count > 0; }));
}

// [S] what one token of a sequence weighs.
std::vector<double> sequence_weights(const ActionTokens& tokens, const LossDenominators& d,
                                     Aggregation aggregation, double constant) {
  std::vector<double> weights(d.tokens_of_sequence.size());
  switch (aggregation) {
    case Aggregation::kTokenMean:
      std::fill(weights.begin(), weights.end(), inverse(d.tokens));
      break;
    case Aggregation::kSeqMeanTokenMean:
      std::transform(d.tokens_of_sequence.begin(), d.tokens_of_sequence.end(), weights.begin(),
                     [&](double count) { return inverse(count) * inverse(d.sequences); });
      break;
    case Aggregation::kSeqMeanTokenSumConst:
      std::fill(weights.begin(), weights.end(), inverse(d.sequences * constant));
      break;
    case Aggregation::kPromptMean: {
      const auto prompt = on_host(tokens.prompt);
      for (std::size_t s = 0; s < weights.size(); ++s) {
        const auto p = static_cast<std::size_t>(prompt[s]);
        require(p < d.tokens_of_prompt.size(), "one token count per prompt");
        weights[s] = inverse(d.tokens_of_prompt[p]) * inverse(d.prompts);
      }
      break;
    }
  }
  return weights;
}

}  // namespace

std::span<const std::string_view> aggregation_names() { return kAggregationNames; }

Aggregation aggregation_kind(const std::string& name) {
  return static_cast<Aggregation>(index_of_name(kAggregationNames, name, "aggregation"));
}

ActionTokens select_tokens(const ActionTokens& tokens, const at::Tensor& kept) {
  return {tokens.anchor_logprobs.index_select(0, kept), tokens.advantages.index_select(0, kept),
          tokens.sequence.index_select(0, kept), tokens.prompt};
}

LossDenominators count_tokens(const ActionTokens& tokens) {
  LossDenominators d;
  const auto prompt = on_host(tokens.prompt);
  d.tokens_of_sequence.resize(prompt.size());
  if (!prompt.empty())
    d.tokens_of_prompt.resize(1 + *std::max_element(prompt.begin(), prompt.end()));
  for (const std::int64_t s : on_host(tokens.sequence)) {
    const auto sequence = static_cast<std::size_t>(s);
    d.tokens += 1;
    d.tokens_of_sequence.at(sequence) += 1;
    d.tokens_of_prompt[static_cast<std::size_t>(prompt[sequence])] += 1;
  }
  d.sequences = count_positive(d.tokens_of_sequence);
  d.prompts = count_positive(d.tokens_of_prompt);
  return d;
}

at::Tensor aggregation_weights(const ActionTokens& tokens, const LossDenominators& denominators,
                               Aggregation aggregation, double constant, const at::Tensor& like) {
  require(
      static_cast<std::int64_t>(denominators.tokens_of_sequence.size()) == tokens.prompt.numel(),
      "one token count per sequence");
  const auto weights = sequence_weights(tokens, denominators, aggregation, constant);
  return at::tensor(weights, at::kDouble).to(like.options()).index_select(0, tokens.sequence);
}

at::Tensor sum_by_sequence(const at::Tensor& values, const at::Tensor& sequence,
                           std::int64_t sequences) {
  return at::zeros({sequences}, values.options()).index_add(0, sequence, values);
}

at::Tensor mean_by_sequence(const at::Tensor& values, const at::Tensor& sequence,
                            std::int64_t sequences) {
  const at::Tensor counts = sum_by_sequence(at::ones_like(values), sequence, sequences);
  return sum_by_sequence(values, sequence, sequences) / at::clamp(counts, 1);
}

}  // namespace rollcall
