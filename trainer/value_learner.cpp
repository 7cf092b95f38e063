// SPDX-License-Identifier: Apache-2.0
#include "trainer/value_learner.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "comms/communicator.h"
#include "trainer/critic.h"

namespace rollcall {
namespace {

constexpr const char* kWeight = "value_head.weight";
constexpr const char* kBias = "value_head.bias";

// Zero: V is 0 at first.
FlatWeights make_head(const ModelSpec& spec) {
  return make_flat_weights(NamedShapes{{kWeight, {1, spec.hidden_size}}, {kBias, {1}}});
}

}  // namespace

ValueLearner::ValueLearner(Trunk& of_the_policy, Communicator& communicator)
    : communicator_(communicator),
      trunk_(of_the_policy),
      masters_(make_head(trunk_.decoder().spec()), communicator) {}

ValueLearner::ValueLearner(const ModelSpec& spec, TrainedPolicy trunk, Communicator& communicator,
                           at::ScalarType dtype)
    : communicator_(communicator),
      own_(std::make_unique<Trunk>(spec, std::move(trunk), communicator, dtype)),
      trunk_(*own_),
      masters_(make_head(spec), communicator) {}

std::vector<ShardedMasters*> ValueLearner::trained() {
  if (own_ == nullptr) return {&masters_};
  return {&own_->masters(), &masters_};
}

void ValueLearner::bind_head() {
  pack(head_, masters_.leaves().at(kWeight));
  head_.bias = masters_.leaves().at(kBias);
}

std::vector<at::Tensor> ValueLearner::values(std::span<const PackedBatch> batches,
                                             const std::function<void()>& between) {
  const at::NoGradGuard no_grad;
  trunk_.bind();
  bind_head();
  std::vector<at::Tensor> result;
  for (const PackedBatch& batch : batches) {
    result.push_back(linear(trunk_.hidden(batch), head_).flatten());
    between();
  }
  return result;
}

ValueStats ValueLearner::update(std::span<const PackedBatch> batches, const ValueTargets& targets,
                                const ValueUpdateOptions& options,
                                const std::function<void()>& between) {
  begin(targets, options);
  trunk_.bind();
  const auto activations = trunk_.activations(options.activation_checkpointing, batches);
  const auto hidden = [&](const PackedBatch& batch) {
    const at::AutoGradMode only_own(own_ != nullptr);
    return trunk_.hidden(batch, activations);
  };
  for (std::size_t i = 0; i < batches.size(); ++i) {
    if (own_ != nullptr && i + 1 == batches.size()) own_->masters().begin_sums();
    share(i, hidden(batches[i])).backward();
    between();
  }
  return finish();
}

void ValueLearner::begin(const ValueTargets& targets, const ValueUpdateOptions& options) {
  for (ShardedMasters* masters : trained()) masters->clear_gradients();
  bind_head();
  targets_ = targets;
  options_ = options;
  loss_ = clipped_ = 0;
}

at::Tensor ValueLearner::share(std::size_t batch, const at::Tensor& hidden) {
  const at::Tensor values = linear(hidden, head_).flatten();
  const at::Tensor &old = targets_.old_values[batch], &returns = targets_.returns[batch];
  at::Tensor loss = value_loss(values, old, returns, options_.value_clip, targets_.tokens);
  loss_ += loss.item<double>();
  clipped_ += clipped_values(values.detach(), old, returns, options_.value_clip);
  return loss;
}

at::Tensor ValueLearner::pull(std::size_t batch, const at::Tensor& hidden, double coefficient) {
  const at::Tensor states = hidden.detach().requires_grad_(true);
  share(batch, states).backward();
  if (coefficient == 0) return {};
  return (hidden * (states.grad() * coefficient)).sum();
}

ValueStats ValueLearner::finish() {
  for (ShardedMasters* masters : trained()) masters->sum_gradients();
  double sums[] = {loss_, clipped_};
  communicator_.all_sum_host(sums);
  double squares = 0;
  for (ShardedMasters* masters : trained()) squares += masters->squared_grad_norm();
  const double norm = std::sqrt(squares);
  const ValueStats stats{sums[0], sums[1] / std::max(1.0, targets_.tokens), norm,
                         !std::isfinite(norm) || !std::isfinite(sums[0])};
  if (!stats.skipped && norm > 0)
    for (ShardedMasters* masters : trained())
      masters->step(clip_factor(norm, options_.max_grad_norm), options_.adamw);
  targets_ = {};
  return stats;
}

CriticState ValueLearner::state() {
  CriticState state;
  if (own_ != nullptr) state.trunk = own_->masters().state();
  state.head = masters_.state();
  return state;
}

bool ValueLearner::fits(const CriticState& state) const {
  const auto fit = [](const OptimizedWeights& weights, std::int64_t count) {
    return weights.masters.size() == static_cast<std::size_t>(count);
  };
  return fit(state.trunk, own_ ? own_->weights().masters().flat.numel() : 0) &&
         fit(state.head, masters_.masters().flat.numel());
}

void ValueLearner::restore(const CriticState& state) {
  if (own_ != nullptr) own_->masters().restore(state.trunk);
  masters_.restore(state.head);
}

}  // namespace rollcall
