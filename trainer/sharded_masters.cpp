// SPDX-License-Identifier: Apache-2.0
#include "trainer/sharded_masters.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <iterator>
#include <numeric>
#include <utility>
#include <vector>

#include "comms/communicator.h"

namespace rollcall {
namespace {

std::int64_t shard_floats(std::int64_t parameters, int members) {
  return (parameters + members - 1) / members;
}

constexpr std::int64_t kSummedAtOnce = 1 << 16;

// In several sums side by side: each addition waits for the one before.
double piece_of_squared_norm(std::span<const float> values) {
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= values.size(); i += kSums)
    for (std::size_t s = 0; s < kSums; ++s)
      sums[s] += static_cast<double>(values[i + s]) * values[i + s];
  for (; i < values.size(); ++i) sums[0] += static_cast<double>(values[i]) * values[i];
  return std::accumulate(std::begin(sums), std::end(sums), 0.0);
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

}  // namespace

ShardedMasters::ShardedMasters(FlatWeights masters, Communicator& communicator)
    : communicator_(communicator),
      masters_(std::move(masters)),
      parameters_(masters_.flat.numel()),
      shard_(shard_floats(parameters_, communicator.size())),
      gradients_(static_cast<std::size_t>(shard_ * communicator.size())),
      decay_(static_cast<std::size_t>(shard_)),
      optimizer_(shard_) {
  const auto* base = masters_.flat.const_data_ptr<float>();
  const std::int64_t shard_begin = communicator.rank() * shard_;
  for (const auto& [name, tensor] : masters_.tensors) {
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

void ShardedMasters::clear_gradients() { std::fill(gradients_.begin(), gradients_.end(), 0.0f); }

double ShardedMasters::squared_own_norm() const { return squared_norm(gradients_); }

void ShardedMasters::sum_gradients() { communicator_.reduce_scatter_sum(gradients_); }

double ShardedMasters::squared_grad_norm() {
  const std::span all(gradients_);
  const auto begin = static_cast<std::size_t>(communicator_.rank() * shard_);
  double squares[] = {squared_norm(all.subspan(begin, static_cast<std::size_t>(shard_)))};
  communicator_.all_sum_host(squares);
  return squares[0];
}

void ShardedMasters::step(double factor, const AdamWOptions& options) {
  const std::int64_t begin = communicator_.rank() * shard_;
  const std::span gradient(gradients_.data() + begin, static_cast<std::size_t>(shard_));
  if (factor != 1.0)
    for (float& g : gradient) g = static_cast<float>(g * factor);
  float* masters = masters_.flat.data_ptr<float>();
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

ShardedMasters::State ShardedMasters::state() {
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

void ShardedMasters::restore(std::span<const float> masters, const State& state) {
  std::copy(masters.begin(), masters.end(), masters_.flat.data_ptr<float>());
  const auto shard_of = [&](std::vector<float> all) {
    all.resize(gradients_.size());
    const auto begin = all.begin() + communicator_.rank() * shard_;
    return std::vector<float>(begin, begin + shard_);
  };
  optimizer_.restore(state.steps, shard_of(state.first_moment), shard_of(state.second_moment));
}

}  // namespace rollcall
