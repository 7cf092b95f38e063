// SPDX-License-Identifier: Apache-2.0
#include "trainer/sft.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <chrono>

#include "comms/communicator.h"
#include "trainer/learner.h"
#include "trainer/task_pool.h"

namespace rollcall {
namespace {

constexpr double kFinalShare = 0.1;  // of the learning rate, at the last step

double sft_learning_rate(const SftOptions& options, std::int64_t step) {
  if (step < options.warmup_steps)
    return warmup_learning_rate(options.learning_rate, options.warmup_steps, step);
  const double done =
      static_cast<double>(step - options.warmup_steps) /
      static_cast<double>(std::max<std::int64_t>(1, options.steps - options.warmup_steps));
  return options.learning_rate * (1 - (1 - kFinalShare) * done);
}

// This member's rows of a step's batch, each demonstration a prompt of its own.
std::vector<TrainSequence> member_sequences(std::span<const Demonstration> demonstrations,
                                            std::span<const std::int64_t> rows,
                                            std::span<const float> zeros,
                                            const Communicator& communicator) {
  std::vector<TrainSequence> sequences;
  for (std::size_t i = static_cast<std::size_t>(communicator.rank()); i < rows.size();
       i += static_cast<std::size_t>(communicator.size())) {
    const Demonstration& d = demonstrations[static_cast<std::size_t>(rows[i])];
    sequences.push_back({d.tokens, d.is_action, zeros.first(d.tokens.size()), d.prompt_length,
                         static_cast<std::int64_t>(i), 1.0});
  }
  return sequences;
}

}  // namespace

void supervised_fine_tuning(const SftOptions& options, const AlgorithmOptions& algorithm,
                            const ModelSpec& spec, const TrainedPolicy& policy,
                            std::span<const Demonstration> demonstrations, std::int64_t valid_ids,
                            at::ScalarType dtype, Communicator& communicator,
                            const std::function<void(const SftProgress&)>& report) {
  Learner learner(spec, policy, valid_ids, communicator, dtype);
  TaskPool pool(static_cast<std::int64_t>(demonstrations.size()), options.seed);
  std::size_t longest = 0;
  for (const auto& d : demonstrations) longest = std::max(longest, d.tokens.size());
  const std::vector<float> zeros(longest);
  for (std::int64_t step = 0; step < options.steps; ++step) {
    const auto begin = std::chrono::steady_clock::now();
    const auto rows = pool.draw(options.batch);
    double action_tokens = 0, tokens = 0;
    for (const auto row : rows) {
      const Demonstration& d = demonstrations[static_cast<std::size_t>(row)];
      action_tokens += static_cast<double>(std::count(d.is_action.begin(), d.is_action.end(), 1));
      tokens += static_cast<double>(d.tokens.size());
    }
    const auto batches = pack_sequences(member_sequences(demonstrations, rows, zeros, communicator),
                                        algorithm.microbatch_tokens);
    const auto loss = [&](std::size_t, const TokenLogprobs& current) {
      return -current.logprobs.sum() / action_tokens;
    };
    const auto stats = learner.update(batches, loss,
                                      {{sft_learning_rate(options, step), algorithm.beta1,
                                        algorithm.beta2, algorithm.epsilon, options.weight_decay},
                                       algorithm.max_grad_norm,
                                       /*max_logprob_gap=*/0,
                                       /*skip_above=*/0,
                                       algorithm.activation_checkpointing},
                                      [] {});
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    report({step + 1, stats.loss, tokens / seconds.count()});
  }
}

}  // namespace rollcall
