// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_values.h"

#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "comms/communicator.h"
#include "trainer/critic.h"

namespace rollcall {
namespace {

constexpr double kEps = 1e-6;  // added to a standard deviation

// The action tokens of a micro-batch in double precision.
struct Tokens {
  std::vector<double> values, advantages, returns;
  std::vector<double> rewards;  // of the whole sequence, at each of its tokens
};

std::vector<double> doubles_of(const at::Tensor& tensor) {
  const at::Tensor host = tensor.to(at::kCPU, at::kDouble).contiguous();
  const auto* values = host.const_data_ptr<double>();
  return {values, values + host.numel()};
}

// Appends one sequence, whose values are the next `count` of `out.values`.
void add_sequence(std::size_t count, double reward, const CriticOptions& options,
                  bool policy_learns, Tokens& out) {
  if (count == 0) return;
  const std::span values = std::span(out.values).subspan(out.returns.size(), count);
  std::vector<double> rewards(count);
  rewards[count - 1] = reward;
  const std::vector<std::uint8_t> is_action(count, 1);
  const auto estimate = [&](double lambda) {
    return generalized_advantages(rewards, values, is_action, options.gamma, lambda);
  };
  const double lambda_policy =
      options.lambda_policy.value_or(decoupled_lambda(static_cast<std::int64_t>(count)));
  const auto advantages = estimate(lambda_policy).advantages;
  const auto returns = estimate(policy_learns ? options.lambda_critic : 1.0).returns;
  out.advantages.insert(out.advantages.end(), advantages.begin(), advantages.end());
  out.returns.insert(out.returns.end(), returns.begin(), returns.end());
  out.rewards.insert(out.rewards.end(), count, reward);
}

Tokens estimate(const PackedBatch& batch, std::span<const TrainSequence> sequences,
                const at::Tensor& values, const CriticOptions& options, bool policy_learns) {
  Tokens tokens{doubles_of(values), {}, {}, {}};
  std::vector<std::size_t> counts(batch.sequences.size());
  const auto* sequence = batch.actions.sequence.const_data_ptr<std::int64_t>();
  for (std::int64_t n = 0; n < batch.actions.sequence.numel(); ++n)
    ++counts[static_cast<std::size_t>(sequence[n])];
  for (std::size_t s = 0; s < counts.size(); ++s) {
    const auto& of = sequences[static_cast<std::size_t>(batch.sequences[s])];
    add_sequence(counts[s], of.reward, options, policy_learns, tokens);
  }
  return tokens;
}

// Sums over the tokens of all learners.
template <std::size_t K, typename Terms>  // Terms: (tokens, n) -> K numbers
std::array<double, K> sums_over(std::span<const Tokens> step, Terms terms,
                                Communicator& communicator) {
  std::array<double, K> sums{};
  for (const Tokens& tokens : step) {
    for (std::size_t n = 0; n < tokens.values.size(); ++n) {
      const std::array<double, K> of_token = terms(tokens, n);
      for (std::size_t k = 0; k < K; ++k) sums[k] += of_token[k];
    }
  }
  communicator.all_sum_host(sums);
  return sums;
}

double square(double x) { return x * x; }

// Whether numbers of this variance and mean are not all equal, but for rounding.
bool differ(double variance, double mean) { return variance > 1e-20 * std::max(1.0, square(mean)); }

at::Tensor floats_of(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble).to(at::kFloat);
}

// Adds up each sequence's advantages and divides by their number.
void average(const PackedBatch& batch, const std::vector<double>& advantages,
             std::vector<double>& of_sequences) {
  const auto* sequence = batch.actions.sequence.const_data_ptr<std::int64_t>();
  std::vector<double> sums(batch.sequences.size()), counts(batch.sequences.size());
  for (std::size_t n = 0; n < advantages.size(); ++n) {
    sums[static_cast<std::size_t>(sequence[n])] += advantages[n];
    counts[static_cast<std::size_t>(sequence[n])] += 1;
  }
  for (std::size_t s = 0; s < sums.size(); ++s)
    of_sequences[static_cast<std::size_t>(batch.sequences[s])] = sums[s] / counts[s];
}

}  // namespace

StepValues step_values(std::span<const PackedBatch> batches,
                       std::span<const TrainSequence> sequences, std::vector<at::Tensor> values,
                       const CriticOptions& options, bool policy_learns,
                       Communicator& communicator) {
  std::vector<Tokens> step;
  for (std::size_t i = 0; i < batches.size(); ++i)
    step.push_back(estimate(batches[i], sequences, values[i], options, policy_learns));

  const auto [count, advantages, value_sum, returns, rewards] = sums_over<5>(
      step,
      [](const Tokens& t, std::size_t n) {
        return std::array{1.0, t.advantages[n], t.values[n], t.returns[n], t.rewards[n]};
      },
      communicator);
  const double tokens = std::max(1.0, count);
  const double advantage_mean = advantages / tokens, value_mean = value_sum / tokens,
               return_mean = returns / tokens, reward_mean = rewards / tokens;
  const auto [advantage_squares, return_squares, error_squares, reward_squares] = sums_over<4>(
      step,
      [&](const Tokens& t, std::size_t n) {
        const double deviation = t.returns[n] - return_mean;
        return std::array{square(t.advantages[n] - advantage_mean), square(deviation),
                          square(deviation - (t.values[n] - value_mean)),
                          square(t.rewards[n] - reward_mean)};
      },
      communicator);

  StepValues result;
  result.sequence_advantages.resize(sequences.size());
  // Where all rewards are equal only the critic's errors are left: whitened they
  // would be a full step in a random direction.
  const bool rewards_differ = differ(reward_squares / tokens, reward_mean);
  const double deviation = std::sqrt(advantage_squares / std::max(1.0, count - 1));
  const double scale = rewards_differ ? 1 / (deviation + kEps) : 0;
  for (std::size_t i = 0; i < step.size(); ++i) {
    for (double& a : step[i].advantages) a = (a - advantage_mean) * scale;
    average(batches[i], step[i].advantages, result.sequence_advantages);
    result.advantages.push_back(floats_of(step[i].advantages));
    result.targets.returns.push_back(floats_of(step[i].returns));
  }
  result.targets.old_values = std::move(values);
  result.targets.tokens = count;
  const bool returns_differ = differ(return_squares / tokens, return_mean);
  result.explained_variance = returns_differ ? 1 - error_squares / return_squares : 0;
  result.value_mean = value_mean;
  result.return_mean = return_mean;
  return result;
}

}  // namespace rollcall
