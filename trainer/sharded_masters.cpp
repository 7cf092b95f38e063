// SPDX-License-Identifier: Apache-2.0
#include "trainer/sharded_masters.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "comms/communicator.h"
#include "comms/error.h"
#include "model/side_sums.h"

namespace rollcall {
namespace {

constexpr std::int64_t kSummedAtOnce = 1 << 16;

double piece_of_squared_norm(std::span<const float> values) {
  return summed_side_by_side(values,
                             [](float value) { return static_cast<double>(value) * value; });
}

// The same bits for any number of threads.
double squared_norm(std::span<const float> values) {
  const auto size = static_cast<std::int64_t>(values.size());
  std::vector<double> pieces(static_cast<std::size_t>((size + kSummedAtOnce - 1) / kSummedAtOnce));
  at::parallel_for(0, std::ssize(pieces), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i * kSummedAtOnce, count = std::min(kSummedAtOnce, size - first);
      pieces[static_cast<std::size_t>(i)] = piece_of_squared_norm(
          values.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count)));
    }
  });
  return std::accumulate(pieces.begin(), pieces.end(), 0.0);
}

std::size_t index_of(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

// Tells of each gradient that a leaf gets.
class ShardedMasters::Arrival : public torch::autograd::PostAccumulateGradHook {
 public:
  Arrival(ShardedMasters& owner, ShardLayout::Range of) : owner_(owner), of_(of) {}
  void operator()(const at::Tensor&) override { owner_.add_arrival(of_); }

 private:
  ShardedMasters& owner_;
  ShardLayout::Range of_;
};

ShardedMasters::ShardedMasters(FlatWeights masters, Communicator& communicator)
    : communicator_(communicator),
      masters_(std::move(masters)),
      parameters_(masters_.flat.numel()),
      layout_(parameters_, communicator.size()),
      gradients_(index_of(layout_.floats())),
      optimizer_(layout_.shard_floats()),
      leaves_of_(index_of(layout_.buckets())) {
  const auto* base = masters_.flat.const_data_ptr<float>();
  std::vector<std::uint8_t> decay(gradients_.size());
  for (const auto& [name, tensor] : masters_.tensors) {
    const ShardLayout::Range range{tensor.const_data_ptr<float>() - base, tensor.numel()};
    at::Tensor leaf = tensor.detach().set_requires_grad(true);
    // Backward adds into the flat gradient in place.
    leaf.mutable_grad() =
        at::from_blob(gradients_.data() + range.begin, tensor.sizes(), at::kFloat);
    if (communicator_.size() > 1) {
      torch::autograd::impl::set_post_acc_grad_hooks(leaf, std::make_unique<Arrival>(*this, range));
      const auto [first, count] = layout_.buckets_of(range);
      for (std::int64_t b = first; b < first + count; ++b) ++leaves_of_[index_of(b)];
    }
    leaves_.emplace(name, leaf);
    // Norm weights and biases are vectors; they are not decayed.
    if (tensor.dim() >= 2) std::fill_n(decay.begin() + range.begin, range.size, std::uint8_t{1});
  }
  decay_ = layout_.shard_of(std::span<const std::uint8_t>(decay), communicator.rank());
}

void ShardedMasters::clear_gradients() {
  std::fill(gradients_.begin(), gradients_.end(), 0.0f);
  awaited_.clear();
  unsummed_ = communicator_.size() > 1 ? layout_.buckets() : 0;
  squared_own_norm_ = 0;
}

double ShardedMasters::squared_own_norm() const { return squared_norm(gradients_); }

void ShardedMasters::begin_sums() {
  if (communicator_.size() > 1) awaited_ = leaves_of_;
}

void ShardedMasters::add_arrival(ShardLayout::Range of) {
  if (awaited_.empty()) return;
  const auto [first, count] = layout_.buckets_of(of);
  for (std::int64_t b = first; b < first + count; ++b)
    if (--awaited_[index_of(b)] < 0)
      throw Error("a parameter got two gradients in one backward pass: its sum had begun");
  // In the same order on every member, whatever the order of arrival.
  while (unsummed_ > 0 && awaited_[index_of(unsummed_ - 1)] == 0) sum_next_bucket();
  communicator_.progress();
}

void ShardedMasters::sum_next_bucket() {
  const std::span<float> values = bucket(gradients_, --unsummed_);
  squared_own_norm_ += squared_norm(values);
  communicator_.begin_reduce_scatter_sum(values);
}

double ShardedMasters::sum_gradients() {
  while (unsummed_ > 0) sum_next_bucket();
  communicator_.finish();
  awaited_.clear();
  return squared_own_norm_;
}

double ShardedMasters::squared_grad_norm() {
  double squares[] = {0};
  for (std::int64_t b = 0; b < layout_.buckets(); ++b) {
    const auto [begin, size] = layout_.piece(b, communicator_.rank());
    squares[0] += squared_norm(std::span(gradients_).subspan(index_of(begin), index_of(size)));
  }
  communicator_.all_sum_host(squares);
  return squares[0];
}

void ShardedMasters::step(double factor, const AdamWOptions& options) {
  const std::span masters(masters_.flat.data_ptr<float>(), index_of(parameters_));
  const auto scale = [&](std::span<float> gradient) {
    if (factor != 1.0)
      for (float& g : gradient) g = static_cast<float>(g * factor);
  };
  if (communicator_.size() == 1) {
    scale(gradients_);
    optimizer_.step(masters, gradients_, decay_, options);
    return;
  }
  const int rank = communicator_.rank();
  std::vector<float> gradient = layout_.shard_of(std::span<const float>(gradients_), rank);
  scale(gradient);
  // From here on the memory of the gradients is that of the masters, with the buckets' padding.
  std::copy(masters.begin(), masters.end(), gradients_.begin());
  std::vector<float> shard = layout_.shard_of(std::span<const float>(gradients_), rank);
  optimizer_.step(shard, gradient, decay_, options);
  layout_.put_shard(shard, rank, gradients_);
  gather(gradients_);
  std::copy_n(gradients_.begin(), parameters_, masters.begin());
}

std::span<float> ShardedMasters::bucket(std::vector<float>& all, std::int64_t index) const {
  const auto [begin, size] = layout_.bucket(index);
  return std::span(all).subspan(index_of(begin), index_of(size));
}

void ShardedMasters::gather(std::vector<float>& all) {
  for (std::int64_t b = 0; b < layout_.buckets(); ++b) communicator_.all_gather(bucket(all, b));
}

OptimizedWeights ShardedMasters::state() {
  const SharedFloats masters({masters_.flat.const_data_ptr<float>(), index_of(parameters_)});
  const std::span first = optimizer_.first_moment(), second = optimizer_.second_moment();
  if (communicator_.size() == 1)
    return {optimizer_.steps(), masters, SharedFloats(first), SharedFloats(second)};
  const bool keeps = communicator_.rank() == 0;
  // Between steps the memory of the gradients is free.
  const auto gathered = [&](std::span<const float> shard) -> SharedFloats {
    layout_.put_shard(shard, communicator_.rank(), gradients_);
    gather(gradients_);
    if (!keeps) return {};
    return std::vector(gradients_.begin(), gradients_.begin() + parameters_);
  };
  OptimizedWeights state{optimizer_.steps(), {}, gathered(first), gathered(second)};
  if (!keeps) return {};
  state.masters = masters;
  return state;
}

void ShardedMasters::restore(const OptimizedWeights& state) {
  std::ranges::copy(state.masters, masters_.flat.data_ptr<float>());
  if (communicator_.size() == 1)
    return optimizer_.restore(state.steps, state.first_moment, state.second_moment);
  const auto shard_of = [&](std::span<const float> all) {
    std::ranges::copy(all, gradients_.begin());
    return layout_.shard_of(std::span<const float>(gradients_), communicator_.rank());
  };
  optimizer_.restore(state.steps, shard_of(state.first_moment), shard_of(state.second_moment));
}

}  // namespace rollcall
