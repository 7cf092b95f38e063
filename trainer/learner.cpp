// SPDX-License-Identifier: Apache-2.0
#include "trainer/learner.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "comms/communicator.h"
#include "comms/error.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

void check_agreement(const UpdateStats& stats, double limit) {
  const double gap = stats.mismatch.gap_mean();
  if (limit <= 0 || !(gap > limit)) return;
  throw Error(fmt::format("sampler and learner disagree: log-probabilities of the step's {:.0f} "
                          "sampled tokens differ by {:.4g} nats on average, {:.4g} at most; "
                          "alarms.logprob_gap is {:.4g}. The step was not applied",
                          stats.action_tokens, gap, stats.mismatch.gap_max, limit),
              "the rollouts were sampled from other weights than the learner holds: was model.path "
              "changed after the run began? A new run.name starts afresh",
              ExitCode::kAlarm);
}

}  // namespace

Learner::Learner(const ModelSpec& spec, TrainedPolicy policy, std::int64_t valid_ids,
                 Communicator& communicator, at::ScalarType dtype)
    : communicator_(communicator),
      trunk_(spec, std::move(policy), communicator, dtype),
      valid_ids_(valid_ids) {}

TokenLogprobs Learner::logprobs_of(const at::Tensor& hidden, const PackedBatch& batch) const {
  return token_logprobs(hidden, trunk_.decoder().head(), batch.targets, valid_ids_);
}

std::vector<at::Tensor> Learner::logprobs(std::span<const PackedBatch> batches,
                                          const std::function<void()>& between) {
  const at::NoGradGuard no_grad;
  trunk_.bind();
  std::vector<at::Tensor> result;
  for (const PackedBatch& batch : batches) {
    result.push_back(logprobs_of(trunk_.hidden(batch), batch).logprobs);
    between();
  }
  return result;
}

void Learner::accumulate(const PackedBatch& batch, std::size_t index, const Loss& loss,
                         const Pull& pull, Activations activations, UpdateStats& stats) {
  const at::Tensor hidden = trunk_.hidden(batch, activations);
  const TokenLogprobs current = logprobs_of(hidden, batch);
  const at::Tensor value = loss(index, current);
  const at::Tensor pulled = pull ? pull(index, hidden) : at::Tensor();
  (pulled.defined() ? value + pulled : value).backward();
  const at::NoGradGuard no_grad;
  stats.loss += value.item<double>();
  stats.action_tokens += static_cast<double>(batch.targets.numel());
  stats.entropy_mean += current.entropy.sum(at::kDouble).item<double>();
  stats.mismatch.add(measure_mismatch(current.logprobs - batch.actions.anchor_logprobs));
}

UpdateStats Learner::update(std::span<const PackedBatch> batches, const Loss& loss,
                            const UpdateOptions& options, const std::function<void()>& between,
                            const Pull& pull) {
  UpdateStats stats;
  ShardedMasters& masters = trunk_.masters();
  masters.clear_gradients();
  trunk_.bind();
  const auto activations = trunk_.activations(options.activation_checkpointing, batches);
  // Several learners are parts of the step; of a single one the first half of its batches is.
  const bool alone = communicator_.size() == 1;
  GradientNoise noise;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    if (i + 1 == batches.size()) masters.begin_sums();
    accumulate(batches[i], i, loss, pull, activations, stats);
    noise.rollouts += static_cast<double>(batches[i].sequences.size());
    if (alone && i + 1 == batches.size() / 2)
      noise.add_part(noise.rollouts, masters.squared_own_norm());
    between();
  }
  const auto summing = Clock::now();
  const double squared_own_norm = masters.sum_gradients();
  if (!alone) {
    noise.add_part(noise.rollouts, squared_own_norm);
    stats.seconds_gradient_sum = std::chrono::duration<double>(Clock::now() - summing).count();
  }
  reduce_stats(stats, noise);
  check_agreement(stats, options.max_logprob_gap);
  // The same number on every member, so they agree on clipping and skipping without a vote.
  const double squared_norm = masters.squared_grad_norm();
  stats.grad_norm_l2 = std::sqrt(squared_norm);
  stats.noise = noise.estimate(squared_norm);
  stats.skipped = !std::isfinite(stats.grad_norm_l2) || !std::isfinite(stats.loss);
  stats.spiked = options.skip_above > 0 && stats.grad_norm_l2 > options.skip_above;
  if (!stats.skipped && !stats.spiked && stats.grad_norm_l2 > 0)
    masters.step(clip_factor(stats.grad_norm_l2, options.max_grad_norm), options.adamw);
  return stats;
}

void Learner::reduce_stats(UpdateStats& stats, GradientNoise& noise) {
  Mismatch& m = stats.mismatch;
  double* const summed[] = {&stats.loss,
                            &stats.action_tokens,
                            &stats.entropy_mean,
                            &m.tokens,
                            &m.gap,
                            &m.ratio,
                            &m.k3,
                            &m.chi2,
                            &m.capped,
                            &m.capped_squares,
                            &noise.rollouts,
                            &noise.part_squares,
                            &noise.part_rollouts,
                            &noise.part_rollouts_squared};
  std::vector<double> sums;
  for (const double* value : summed) sums.push_back(*value);
  communicator_.all_sum_host(sums);
  for (std::size_t i = 0; i < sums.size(); ++i) *summed[i] = sums[i];
  stats.entropy_mean /= std::max(1.0, stats.action_tokens);
  // A maximum by sums: every member puts its own in a slot of its own.
  std::vector<double> highest(static_cast<std::size_t>(communicator_.size()));
  highest[static_cast<std::size_t>(communicator_.rank())] = m.gap_max;
  communicator_.all_sum_host(highest);
  m.gap_max = *std::max_element(highest.begin(), highest.end());
}

}  // namespace rollcall
