// SPDX-License-Identifier: Apache-2.0
#include "trainer/task_pool.h"

#include <numeric>
#include <utility>

#include "comms/error.h"
#include "model/sampling.h"

namespace rollcall {

TaskPool::TaskPool(std::int64_t tasks, std::uint64_t seed) : tasks_(tasks), seed_(seed) {
  if (tasks <= 0)
    throw input_error("data.train has no tasks", "give a dataset with at least one row");
}

const std::vector<std::int64_t>& TaskPool::permutation(std::int64_t epoch) {
  if (epoch == epoch_) return permutation_;
  epoch_ = epoch;
  permutation_.resize(static_cast<std::size_t>(tasks_));
  std::iota(permutation_.begin(), permutation_.end(), std::int64_t{0});
  const std::uint64_t path[] = {static_cast<std::uint64_t>(epoch)};
  const std::uint64_t seed = derive_seed(seed_, path);
  for (std::int64_t i = tasks_ - 1; i > 0; --i) {  // Fisher-Yates
    const auto j = static_cast<std::int64_t>(uniform_draw(seed, static_cast<std::uint64_t>(i)) *
                                             static_cast<double>(i + 1));
    std::swap(permutation_[static_cast<std::size_t>(i)], permutation_[static_cast<std::size_t>(j)]);
  }
  return permutation_;
}

std::vector<std::int64_t> TaskPool::draw(std::int64_t count) {
  std::vector<std::int64_t> rows;
  for (; count > 0; --count, ++drawn_)
    rows.push_back(permutation(drawn_ / tasks_)[static_cast<std::size_t>(drawn_ % tasks_)]);
  return rows;
}

}  // namespace rollcall
