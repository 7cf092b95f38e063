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

TokenLogprobs Learner::forward(const PackedBatch& batch, Activations activations) const {
  const at::Tensor hidden =
      decoder_.packed_hidden(batch.tokens, batch.segments, activations).index_select(0, batch.rows);
  return token_logprobs(hidden, decoder_.head(), batch.targets, valid_ids_);
}

std::vector<at::Tensor> Learner::logprobs(std::span<const PackedBatch> batches,
                                          const std::function<void()>& between) {
  const at::NoGradGuard no_grad;
  policy_.bind(decoder_, leaves_);
  std::vector<at::Tensor> result;
  for (const PackedBatch& batch : batches) {
    result.push_back(forward(batch, Activations::kKept).logprobs);
    between();
  }
  return result;
}

void Learner::accumulate(const PackedBatch& batch, std::size_t index, const Loss& loss,
                         Activations activations, UpdateStats& stats) {
  const TokenLogprobs current = forward(batch, activations);
  const at::Tensor value = loss(index, current);
  value.backward();
  const at::NoGradGuard no_grad;
  stats.loss += value.item<double>();
  stats.action_tokens += static_cast<double>(batch.targets.numel());
  stats.entropy_mean += current.entropy.sum(at::kDouble).item<double>();
  stats.mismatch.add(measure_mismatch(current.logprobs - batch.actions.anchor_logprobs));
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
  if (!stats.skipped && stats.grad_norm_l2 > 0)
    apply(clip_factor(stats.grad_norm_l2, options.max_grad_norm), options.adamw);
  return stats;
}

void Learner::reduce_stats(UpdateStats& stats) {
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
                            &m.capped_squares};
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
  float* masters = policy_.masters().flat.data_ptr<float>();
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
  std::copy(masters.begin(), masters.end(), policy_.masters().flat.data_ptr<float>());
  const auto shard_of = [&](std::vector<float> all) {
    all.resize(gradients_.size());
    const auto begin = all.begin() + communicator_.rank() * shard_;
    return std::vector<float>(begin, begin + shard_);
  };
  optimizer_.restore(state.steps, shard_of(state.first_moment), shard_of(state.second_moment));
}

}  // namespace rollcall
