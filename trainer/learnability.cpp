// SPDX-License-Identifier: Apache-2.0
#include "trainer/learnability.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "trainer/batch_scaler.h"

namespace rollcall {
namespace {

constexpr std::int64_t kSmallestGroup = 4, kLargestGroup = 256;
constexpr int kFits = 200;         // resamples of the tasks, each with a fit of its own
constexpr double kNoticed = 0.01;  // a gain of pass@k or score that counts
constexpr int kBins = 10;          // between 0 and 1

bool differ(const TaskOutcome& o) {
  return std::any_of(o.rewards.begin(), o.rewards.end(),
                     [&](double r) { return r != o.rewards.front(); });
}

std::size_t reward_values(std::span<const TaskOutcome> outcomes) {
  std::set<double> values;
  for (const TaskOutcome& o : outcomes) values.insert(o.rewards.begin(), o.rewards.end());
  return values.size();
}

double largest_reward(std::span<const TaskOutcome> outcomes) {
  double largest = -std::numeric_limits<double>::infinity();
  for (const TaskOutcome& o : outcomes)
    largest = std::max(largest, *std::max_element(o.rewards.begin(), o.rewards.end()));
  return largest;
}

std::int64_t how_often(const TaskOutcome& o, double reward) {
  return std::count(o.rewards.begin(), o.rewards.end(), reward);
}

ValueCounts value_counts(const TaskOutcome& o) {
  std::map<double, std::int64_t> counts;
  for (const double r : o.rewards) ++counts[r];
  ValueCounts sorted;
  for (const auto& [reward, count] : counts) sorted.push_back(count);
  std::ranges::sort(sorted, std::greater());
  return sorted;
}

// Chance that so many rollouts, drawn without replacement, do not all have the same reward:
// unbiased for that of a group. Of a larger group than there are rollouts, at least that of all of
// them.
double differing_probability(const ValueCounts& counts, std::int64_t size) {
  const std::int64_t all = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  size = std::min(size, all);
  double same = 0;
  for (const std::int64_t count : counts) {
    double chance = 1;  // all `size` of them are of these
    for (std::int64_t i = 0; i < size; ++i)
      chance *= static_cast<double>(count - i) / static_cast<double>(all - i);
    same += std::max(0.0, chance);
  }
  return 1 - same;
}

double differing_share(std::span<const ValueCounts> tasks, std::int64_t size) {
  double sum = 0;
  for (const ValueCounts& counts : tasks) sum += differing_probability(counts, size);
  return sum / static_cast<double>(tasks.size());
}

std::vector<GroupCount> success_counts(std::span<const TaskOutcome> outcomes) {
  const double largest = largest_reward(outcomes);
  std::vector<GroupCount> counts;
  for (const TaskOutcome& o : outcomes) counts.push_back({how_often(o, largest), o.graded()});
  return counts;
}

// Mass a rollout of each task with two graded ones, rewards scaled to [0, 1].
std::vector<double> signal_of_tasks(std::span<const TaskOutcome> outcomes) {
  double low = 0, high = 1;
  for (const TaskOutcome& o : outcomes) {
    low = std::min(low, *std::min_element(o.rewards.begin(), o.rewards.end()));
    high = std::max(high, *std::max_element(o.rewards.begin(), o.rewards.end()));
  }
  std::vector<double> masses;
  for (const TaskOutcome& o : outcomes) {
    if (o.graded() < 2) continue;
    GroupOutcome group{o.task, o.rewards};
    for (double& r : group.rewards) r = (r - low) / (high - low);
    masses.push_back(signal_mass(std::span(&group, 1)) / static_cast<double>(o.graded()));
  }
  return masses;
}

std::vector<RateBin> histogram_of(std::span<const TaskOutcome> outcomes) {
  std::vector<RateBin> bins{{0, 0}};
  for (int i = 0; i < kBins; ++i)
    bins.push_back({static_cast<double>(i) / kBins, static_cast<double>(i + 1) / kBins});
  bins.push_back({1, 1});
  for (const TaskOutcome& o : outcomes) {
    const double rate = o.rate();
    const int bin =
        rate == 0   ? 0
        : rate == 1 ? kBins + 1
                    : 1 + std::min(kBins - 1, static_cast<int>(std::ceil(rate * kBins - 1e-9)) - 1);
    ++bins[static_cast<std::size_t>(bin)].tasks;
  }
  return bins;
}

Rise rise_of(std::span<const CurvePoint> curve) {
  if (curve.size() < 2) return {};
  const CurvePoint& last = curve.back();
  const CurvePoint& other = curve[curve.size() - 2];
  Rise rise{.k = last.k, .before = other.k};
  rise.pass_gain = last.pass.mean - other.pass.mean;
  rise.pass_ratio = other.pass.mean > 0 ? last.pass.mean / other.pass.mean
                                        : std::numeric_limits<double>::quiet_NaN();
  rise.best_gain = last.best.mean - other.best.mean;
  rise.goes_on = rise.pass_gain >= kNoticed || rise.best_gain >= kNoticed;
  return rise;
}

double informative_share(const SuccessRates& rates, std::int64_t size) {
  return rates.expect([&](double p) { return informative_probability(p, size); });
}

std::vector<std::int64_t> group_sizes() {
  std::vector<std::int64_t> sizes;
  for (std::int64_t size = kSmallestGroup; size <= kLargestGroup; size *= 2) sizes.push_back(size);
  return sizes;
}

// Each resample of the tasks is fitted anew.
std::vector<GroupSignal> group_signals(std::span<const GroupCount> counts,
                                       const SuccessRates& rates, std::int64_t samples,
                                       std::uint64_t seed) {
  std::map<std::int64_t, std::vector<double>> replicates;
  for (std::uint64_t round = 0; round < kFits; ++round) {
    std::vector<GroupCount> picked;
    for (const std::size_t i : resampled(counts.size(), seed, round)) picked.push_back(counts[i]);
    const SuccessRates fit = fit_success_rates(picked);
    for (const std::int64_t size : group_sizes())
      replicates[size].push_back(informative_share(fit, size));
  }
  std::vector<GroupSignal> groups;
  for (const std::int64_t size : group_sizes())
    groups.push_back({size, percentile_interval(informative_share(rates, size), replicates[size]),
                      size > samples});
  return groups;
}

std::vector<GroupSignal> counted_signals(std::span<const ValueCounts> tasks, std::int64_t samples,
                                         std::uint64_t seed) {
  std::vector<GroupSignal> groups;
  for (const std::int64_t size : group_sizes()) {
    std::vector<double> chances;
    for (const ValueCounts& counts : tasks) chances.push_back(differing_probability(counts, size));
    groups.push_back({size, bootstrap_mean(chances, seed), size > samples});
  }
  return groups;
}

// Of what no rollout showed: by the rule of three at most 3 in all of them.
std::vector<GroupSignal> bounded_signals(std::int64_t rollouts, std::int64_t samples) {
  const double most = std::min(0.5, 3 / static_cast<double>(rollouts));
  std::vector<GroupSignal> groups;
  for (const std::int64_t size : group_sizes())
    groups.push_back({size, {0, 0, informative_probability(most, size)}, size > samples});
  return groups;
}

void count_outcomes(Learnability& l, std::span<const TaskOutcome> outcomes) {
  const auto n = static_cast<double>(outcomes.size());
  for (const TaskOutcome& o : outcomes) {
    l.rollouts += o.graded();
    l.passed += o.passed;
    (o.passed == 0            ? l.share_zero
     : o.passed == o.graded() ? l.share_one
                              : l.share_between) += 1 / n;
    l.share_mixed += differ(o) ? 1 / n : 0;
  }
  if (l.passed == 0) l.pass_rate_bound = std::min(1.0, 3 / static_cast<double>(l.rollouts));
}

}  // namespace

double Learnability::informative(std::int64_t group_size) const {
  const double fitted = rates.rates.empty() ? 0 : informative_share(rates, group_size);
  return values.empty() ? fitted : std::max(fitted, differing_share(values, group_size));
}

Learnability learnability(std::span<const TaskOutcome> outcomes, std::int64_t samples,
                          std::uint64_t seed) {
  Learnability l;
  l.tasks = static_cast<std::int64_t>(outcomes.size());
  l.samples = samples;
  if (outcomes.empty()) return l;
  count_outcomes(l, outcomes);
  l.curve = pass_curve(outcomes, samples, seed);
  l.rise = rise_of(l.curve);
  l.histogram = histogram_of(outcomes);
  l.signal = bootstrap_mean(signal_of_tasks(outcomes), seed);
  if (l.share_mixed == 0) {
    l.signal = {0, 0, std::min(0.25, 3 / static_cast<double>(l.rollouts))};
    l.groups = bounded_signals(l.rollouts, samples);
    return l;
  }
  if (reward_values(outcomes) > 2) {
    std::vector<GroupCount> passes;
    for (const TaskOutcome& o : outcomes) {
      l.values.push_back(value_counts(o));
      passes.push_back({o.passed, o.graded()});
    }
    l.groups = counted_signals(l.values, samples, seed);
    if (l.share_between == 0) return l;
    l.rates = fit_success_rates(passes);
    const auto fitted = group_signals(passes, l.rates, samples, seed);
    for (std::size_t i = 0; i < fitted.size(); ++i)
      if (fitted[i].extrapolated && fitted[i].share.mean > l.groups[i].share.mean)
        l.groups[i] = fitted[i];
    return l;
  }
  const std::vector<GroupCount> counts = success_counts(outcomes);
  l.rates = fit_success_rates(counts);
  l.groups = group_signals(counts, l.rates, samples, seed);
  return l;
}

}  // namespace rollcall
