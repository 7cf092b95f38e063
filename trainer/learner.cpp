// SPDX-License-Identifier: Apache-2.0
#include "trainer/learner.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "comms/communicator.h"
#include "comms/error.h"

namespace rollcall {
namespace {

std::int64_t shard_floats(std::int64_t parameters, int members) {
  return (parameters + members - 1) / members;
}

void check_agreement(const UpdateStats& stats, double limit) {
  if (limit <= 0 || !(stats.logprob_gap_mean > limit)) return;
  throw Error(
      fmt::format("sampler and learner disagree: log-probabilities of the step's {:.0f} "
                  "sampled tokens differ by {:.4g} nats on average, {:.4g} at most; "
                  "alarms.logprob_gap is {:.4g}. The step was not applied",
                  stats.action_tokens, stats.logprob_gap_mean, stats.logprob_gap_max, limit),
      "the rollouts were sampled from other weights than the learner holds: was model.path "
      "changed after the run began? A new run.name starts afresh",
      ExitCode::kAlarm);
}

}  // namespace

Learner::Learner(const ModelSpec& spec, TrainedPolicy policy, std::int64_t valid_ids,
                 Communicator& communicator, at::ScalarType dtype)
    : communicator_(communicator),
      decoder_(spec, dtype),
      policy_(std::move(policy)),
      valid_ids_(valid_ids),
      parameters_(masters().flat.numel()),
      shard_(shard_floats(parameters_, communicator.size())),
      gradients_(static_cast<std::size_t>(shard_ * communicator.size())),
      decay_(static_cast<std::size_t>(shard_)),
      optimizer_(shard_) {
  const auto* base = masters().flat.const_data_ptr<float>();
  const std::int64_t shard_begin = communicator.rank() * shard_;
  for (const auto& [name, tensor] : masters().tensors) {
    const std::int64_t offset = tensor.const_data_ptr<float>() - base;
    at::Tensor leaf = tensor.detach().set_requires_grad(true);
    // Backward adds into the flat gradient in place.
    leaf.mutable_grad() = at::from_blob(gradients_.data() + offset, tensor.sizes(), at::kFloat);
    leaves_.emplace(name, leaf);
    // Norm weights and biases are vectors; they are not decayed.
    const std::int64_t begin = std::max(offset - shard_begin, std::int64_t{0});
    const std::int64_t end = std::min(offset + tensor.numel() - shard_begin, shard_);
    if (tensor.dim() >= 2 && begin < end)
      std::fill(decay_.begin() + begin, decay_.begin() + end, std::uint8_t{1});
  }
}

void Learner::accumulate(const PackedBatch& batch, std::size_t index, const Loss& loss,
                         Activations activations, UpdateStats& stats) {
  const at::Tensor hidden =
      decoder_.packed_hidden(batch.tokens, batch.segments, activations).index_select(0, batch.rows);
  const TokenLogprobs current = token_logprobs(hidden, decoder_.head(), batch.targets, valid_ids_);
  const at::Tensor value = loss(index, current);
  value.backward();
  const at::NoGradGuard no_grad;
  stats.loss += value.item<double>();
  stats.action_tokens += static_cast<double>(batch.targets.numel());
  stats.entropy_mean += current.entropy.sum(at::kDouble).item<double>();
  const at::Tensor difference = current.logprobs - batch.actions.anchor_logprobs;
  const at::Tensor gap = difference.abs();
  stats.logprob_gap_mean += gap.sum(at::kDouble).item<double>();
  stats.logprob_gap_max = std::max(stats.logprob_gap_max, gap.max().item<double>());
  stats.ratio_mean += difference.exp().sum(at::kDouble).item<double>();
}

UpdateStats Learner::update(std::span<const PackedBatch> batches, const Loss& loss,
                            const UpdateOptions& options, const std::function<void()>& between) {
  UpdateStats stats;
  std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  policy_.bind(decoder_, leaves_);
  const auto activations =
      options.activation_checkpointing ? Activations::kRecomputed : Activations::kKept;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    accumulate(batches[i], i, loss, activations, stats);
    between();
  }
  communicator_.reduce_scatter_sum(gradients_);
  reduce_stats(stats);
  check_agreement(stats, options.max_logprob_gap);
  stats.grad_norm_l2 = reduced_grad_norm();
  stats.skipped = !std::isfinite(stats.grad_norm_l2) || !std::isfinite(stats.loss);
  if (!stats.skipped && stats.action_tokens > 0)
    apply(clip_factor(stats.grad_norm_l2, options.max_grad_norm), options.adamw);
  return stats;
}

void Learner::reduce_stats(UpdateStats& stats) {
  double sums[] = {stats.loss, stats.action_tokens, stats.entropy_mean, stats.logprob_gap_mean,
                   stats.ratio_mean};
  communicator_.all_sum_host(sums);
  // A maximum by sums: every member puts its own in a slot of its own.
  std::vector<double> highest(static_cast<std::size_t>(communicator_.size()));
  highest[static_cast<std::size_t>(communicator_.rank())] = stats.logprob_gap_max;
  communicator_.all_sum_host(highest);
  const double tokens = std::max(1.0, sums[1]);
  stats.loss = sums[0];
  stats.action_tokens = sums[1];
  stats.entropy_mean = sums[2] / tokens;
  stats.logprob_gap_mean = sums[3] / tokens;
  stats.ratio_mean = sums[4] / tokens;
  stats.logprob_gap_max = *std::max_element(highest.begin(), highest.end());
}

// The norm is the same number on every member, so they agree on clipping and skipping without a
// vote.
double Learner::reduced_grad_norm() {
  const auto* shard = gradients_.data() + communicator_.rank() * shard_;
  double squares[] = {0};
  for (std::int64_t i = 0; i < shard_; ++i) squares[0] += static_cast<double>(shard[i]) * shard[i];
  communicator_.all_sum_host(squares);
  return std::sqrt(squares[0]);
}

void Learner::apply(double factor, const AdamWOptions& options) {
  const std::int64_t begin = communicator_.rank() * shard_;
  const std::span gradient(gradients_.data() + begin, static_cast<std::size_t>(shard_));
  if (factor != 1.0)
    for (float& g : gradient) g = static_cast<float>(g * factor);
  float* masters = masters().flat.data_ptr<float>();
  if (communicator_.size() == 1) {
    optimizer_.step({masters, static_cast<std::size_t>(parameters_)}, gradient, decay_, options);
    return;
  }
  std::vector<float> padded(gradients_.size());
  std::copy_n(masters, parameters_, padded.begin());
  optimizer_.step({padded.data() + begin, static_cast<std::size_t>(shard_)}, gradient, decay_,
                  options);
  communicator_.all_gather(padded);
  std::copy_n(padded.begin(), parameters_, masters);
}

Learner::OptimizerState Learner::optimizer_state() {
  const auto gather = [&](std::span<const float> shard) {
    std::vector<float> all(gradients_.size());
    std::copy(shard.begin(), shard.end(), all.begin() + communicator_.rank() * shard_);
    if (communicator_.size() > 1) communicator_.all_gather(all);
    all.resize(static_cast<std::size_t>(parameters_));
    return all;
  };
  return {optimizer_.steps(), gather(optimizer_.first_moment()),
          gather(optimizer_.second_moment())};
}

void Learner::restore(std::span<const float> masters, const OptimizerState& state) {
  std::copy(masters.begin(), masters.end(), masters().flat.data_ptr<float>());
  const auto shard_of = [&](std::vector<float> all) {
    all.resize(gradients_.size());
    const auto begin = all.begin() + communicator_.rank() * shard_;
    return std::vector<float>(begin, begin + shard_);
  };
  optimizer_.restore(state.steps, shard_of(state.first_moment), shard_of(state.second_moment));
}

}  // namespace rollcall
