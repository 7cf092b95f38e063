// SPDX-License-Identifier: Apache-2.0
#include "trainer/success_rates.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace rollcall {
namespace {

constexpr int kIterations = 200;

// 0, then evenly by log odds from 1 in 10,000, then 1.
std::vector<double> grid() {
  std::vector<double> rates{0};
  for (int i = -23; i <= 23; ++i) rates.push_back(1 / (1 + std::exp(-0.4 * i)));
  rates.push_back(1);
  return rates;
}

double log_power(double base, std::int64_t exponent) {
  return exponent == 0 ? 0 : static_cast<double>(exponent) * std::log(base);
}

// Of each rate, up to a factor.
std::vector<double> likelihoods(const GroupCount& count, std::span<const double> rates) {
  std::vector<double> values;
  for (const double p : rates)
    values.push_back(log_power(p, count.successes) +
                     log_power(1 - p, count.size - count.successes));
  const double best = *std::max_element(values.begin(), values.end());
  for (double& value : values) value = std::exp(value - best);
  return values;
}

struct Kind {  // tasks with the same counts
  double tasks = 0;
  std::vector<double> likelihood;
};

std::vector<Kind> kinds_of(std::span<const GroupCount> tasks, std::span<const double> rates) {
  std::map<std::pair<std::int64_t, std::int64_t>, Kind> kinds;
  for (const GroupCount& count : tasks) {
    Kind& kind = kinds[{count.successes, count.size}];
    if (kind.tasks++ == 0) kind.likelihood = likelihoods(count, rates);
  }
  std::vector<Kind> list;
  for (auto& [counts, kind] : kinds) list.push_back(std::move(kind));
  return list;
}

// One step of EM: the mean over tasks of each one's posterior.
std::vector<double> improved(std::span<const double> shares, std::span<const Kind> kinds) {
  const auto places = static_cast<double>(shares.size());
  std::vector<double> sums(shares.size(), 1 / places);
  double tasks = 1;
  for (const Kind& kind : kinds) {
    double total = 0;
    for (std::size_t j = 0; j < shares.size(); ++j) total += shares[j] * kind.likelihood[j];
    for (std::size_t j = 0; j < shares.size(); ++j)
      sums[j] += kind.tasks * shares[j] * kind.likelihood[j] / total;
    tasks += kind.tasks;
  }
  for (double& sum : sums) sum /= tasks;
  return sums;
}

}  // namespace

double SuccessRates::expect(const std::function<double(double)>& of) const {
  double sum = 0;
  for (std::size_t j = 0; j < rates.size(); ++j) sum += shares[j] * of(rates[j]);
  return sum;
}

SuccessRates fit_success_rates(std::span<const GroupCount> tasks) {
  SuccessRates fit{grid(), {}};
  fit.shares.assign(fit.rates.size(), 1 / static_cast<double>(fit.rates.size()));
  const std::vector<Kind> kinds = kinds_of(tasks, fit.rates);
  for (int i = 0; i < kIterations; ++i) fit.shares = improved(fit.shares, kinds);
  return fit;
}

}  // namespace rollcall
