// SPDX-License-Identifier: Apache-2.0
// Every advantage on a problem whose truth is known: a policy that succeeds with probability p =
// sigmoid(theta), so that the gradient of p is p (1 - p) and a rollout's score, d log pi / d theta,
// is r - p. What is measured over many draws must lie within three standard errors of what sums
// over the binomial distribution of successes say.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "model/sampling.h"
#include "trainer/advantages.h"
#include "trainer/batch_scaler.h"
#include "trainer/corrections.h"
#include "trainer/critic.h"
#include "trainer/gradient_noise.h"
#include "trainer/losses.h"

namespace rollcall {
namespace {

constexpr double kErrors = 3;

class Draws {
 public:
  explicit Draws(std::uint64_t seed) : seed_(seed) {}
  std::vector<double> rewards(double p, std::int64_t size) {
    std::vector<double> group;
    for (std::int64_t i = 0; i < size; ++i)
      group.push_back(uniform_draw(seed_, drawn_++) < p ? 1 : 0);
    return group;
  }

 private:
  std::uint64_t seed_, drawn_ = 0;
};

struct Moments {
  double mean = 0, variance = 0;
};

class Measured {
 public:
  void add(double x) {
    const double delta = x - mean_;
    mean_ += delta / ++n_;
    squares_ += delta * (x - mean_);
    values_.push_back(x);
  }
  double mean() const { return mean_; }
  double variance() const { return squares_ / (n_ - 1); }
  double mean_error() const { return std::sqrt(variance() / n_); }
  double variance_error() const {
    double fourth = 0;
    for (const double x : values_) fourth += std::pow(x - mean_, 4) / n_;
    return std::sqrt(std::max(0.0, fourth - variance() * variance()) / n_);
  }

 private:
  double n_ = 0, mean_ = 0, squares_ = 0;
  std::vector<double> values_;
};

double choose(double n, double k) {
  if (k < 0 || k > n) return 0;
  return std::round(std::exp(std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1)));
}

// The gradient that a group says: the mean of advantage times score.
double gradient(const std::vector<double>& rewards, const std::vector<double>& advantages,
                double p) {
  double sum = 0;
  for (std::size_t i = 0; i < rewards.size(); ++i) sum += advantages[i] * (rewards[i] - p);
  return sum / static_cast<double>(rewards.size());
}

// Advantages of successes and failures where k of n succeed, as the papers write them.
struct Pair {
  double success = 0, failure = 0;
};
using Formula = std::function<Pair(double k, double n)>;

Pair rloo(double k, double n) { return {1 - (k - 1) / (n - 1), -k / (n - 1)}; }

Pair grpo_std(double k, double n) {
  const double mean = k / n, deviation = std::sqrt(k * (n - k) / n / (n - 1));
  if (deviation == 0) return {};
  return {(1 - mean) / (deviation + 1e-6), -mean / (deviation + 1e-6)};
}

Pair maxrl(double k, double n) { return k == 0 ? Pair{} : Pair{(1 - k / n) / (k / n), -1}; }

Pair pass_at_2(double c, double n) {
  const double r = 1 - choose(n - c, 2) / choose(n, 2), s = std::sqrt(r * (1 - r));
  if (s == 0) return {};
  const double hit = 1 - choose(n - c - 1, 1) / choose(n - 1, 1);
  return {(1 - r) / (s + 1e-6), (hit - r) / (s + 1e-6)};
}

Moments truth(const Formula& formula, double p, double n) {
  Moments m;
  double squares = 0;
  for (double k = 0; k <= n; ++k) {
    const double chance = choose(n, k) * std::pow(p, k) * std::pow(1 - p, n - k);
    const auto [success, failure] = formula(k, n);
    const double g = (k * success * (1 - p) - (n - k) * failure * p) / n;
    m.mean += chance * g;
    squares += chance * g * g;
  }
  m.variance = squares - m.mean * m.mean;
  return m;
}

struct Estimator {
  std::string name;
  AdvantageOptions options;
  Formula formula;
};

std::vector<Estimator> estimators() {
  return {{"rloo", {.kind = AdvantageKind::kRloo}, rloo},
          {"drgrpo",
           {.kind = AdvantageKind::kDrGrpo},
           [](double k, double n) {
             return Pair{1 - k / n, -k / n};
           }},
          {"grpo_std", {.kind = AdvantageKind::kGrpoStd}, grpo_std},
          {"maxrl", {.kind = AdvantageKind::kMaxRl}, maxrl},
          {"passk", {.kind = AdvantageKind::kPassK, .k = 2}, pass_at_2}};
}

TEST(EstimatorTruth, BiasAndVarianceAreThoseOfTheFormulas) {
  std::uint64_t seed = 0;
  for (const Estimator& estimator : estimators()) {
    for (const double p : {0.01, 0.1, 0.5, 0.9}) {
      for (const std::int64_t size : {4, 16}) {
        Draws draws(++seed);
        Measured measured;
        for (int i = 0; i < 20000; ++i) {
          const std::vector<std::vector<double>> group{draws.rewards(p, size)};
          measured.add(gradient(group[0], group_advantages(group, estimator.options)[0], p));
        }
        const Moments expected = truth(estimator.formula, p, static_cast<double>(size));
        const std::string where =
            estimator.name + ", p " + std::to_string(p) + ", of " + std::to_string(size);
        EXPECT_NEAR(measured.mean(), expected.mean, kErrors * measured.mean_error()) << where;
        EXPECT_NEAR(measured.variance(), expected.variance, kErrors * measured.variance_error())
            << where;
      }
    }
  }
}

// What each estimator makes larger or smaller: E[g] = w(p) p (1 - p).
TEST(EstimatorTruth, WeightsAreTheClosedOnes) {
  for (const double p : {0.01, 0.1, 0.5, 0.9}) {
    for (const double n : {4.0, 16.0}) {
      const double gradient_of_p = p * (1 - p);
      const auto all = estimators();
      EXPECT_NEAR(truth(all[0].formula, p, n).mean, gradient_of_p, 1e-12);
      EXPECT_NEAR(truth(all[1].formula, p, n).mean, (1 - 1 / n) * gradient_of_p, 1e-12);
      EXPECT_NEAR(truth(all[3].formula, p, n).mean,
                  (1 - std::pow(1 - p, n - 1)) / p * gradient_of_p, 1e-12);
    }
  }
}

// As a step makes them: a group without a signal has no part in the step's deviation.
std::vector<std::vector<double>> kept_advantages(const std::vector<std::vector<double>>& groups,
                                                 AdvantageKind kind) {
  std::vector<std::vector<double>> kept;
  for (const auto& group : groups)
    if (has_signal(group)) kept.push_back(group);
  const auto advantages = group_advantages(kept, {.kind = kind});
  std::vector<std::vector<double>> all;
  std::size_t next = 0;
  for (const auto& group : groups)
    all.push_back(has_signal(group) ? advantages[next++] : std::vector<double>(group.size(), 0.0));
  return all;
}

// One deviation for the whole step: tasks of different difficulty keep their relative weights.
TEST(EstimatorTruth, DeviationOfTheStepKeepsRelativeWeights) {
  for (const auto kind : {AdvantageKind::kRlooBatchStd, AdvantageKind::kBatchStd}) {
    const double hard = 0.05, easy = 0.6;
    Draws draws(77);
    Measured difference;  // of the two gradients, each over its truth
    for (int step = 0; step < 400; ++step) {
      std::vector<std::vector<double>> groups;
      for (int g = 0; g < 64; ++g) groups.push_back(draws.rewards(g % 2 == 0 ? hard : easy, 8));
      const auto advantages = kept_advantages(groups, kind);
      double sums[2] = {};
      for (std::size_t g = 0; g < groups.size(); ++g) {
        const double p = g % 2 == 0 ? hard : easy;
        sums[g % 2] += gradient(groups[g], advantages[g], p) / (p * (1 - p));
      }
      difference.add(sums[0] - sums[1]);
    }
    EXPECT_NEAR(difference.mean(), 0, kErrors * difference.mean_error());
  }
}

// The mean over those of two groups that have a signal, which share a deviation; over all pairs of
// successes.
Moments truth_of_pairs(double p1, double p2, double n, bool rloo_scale) {
  Moments m;
  double squares = 0;
  for (double k1 = 0; k1 <= n; ++k1)
    for (double k2 = 0; k2 <= n; ++k2) {
      double kept = 0, successes = 0, chance = 1;
      for (const auto& [k, p] : {Pair{k1, p1}, Pair{k2, p2}}) {
        chance *= choose(n, k) * std::pow(p, k) * std::pow(1 - p, n - k);
        if (k > 0 && k < n) successes += k, ++kept;
      }
      double g = 0;
      if (kept > 0) {
        const double all = kept * n, mean = successes / all;
        const double deviation = std::sqrt(all / (all - 1) * mean * (1 - mean));
        const double scale = (rloo_scale ? n / (n - 1) : 1) / (deviation + 1e-6);
        for (const auto& [k, p] : {Pair{k1, p1}, Pair{k2, p2}})
          if (k > 0 && k < n)
            g += scale * (k * (1 - k / n) * (1 - p) + (n - k) * k / n * p) / n / kept;
      }
      m.mean += chance * g;
      squares += chance * g * g;
    }
  m.variance = squares - m.mean * m.mean;
  return m;
}

TEST(EstimatorTruth, DeviationOfTheStepHasTheBiasAndVarianceOfItsFormula) {
  for (const auto kind : {AdvantageKind::kRlooBatchStd, AdvantageKind::kBatchStd}) {
    Draws draws(5);
    Measured measured;
    for (int i = 0; i < 20000; ++i) {
      const std::vector<std::vector<double>> groups{draws.rewards(0.1, 8), draws.rewards(0.5, 8)};
      const auto advantages = kept_advantages(groups, kind);
      const double kept = has_signal(groups[0]) + has_signal(groups[1]);
      measured.add(
          (gradient(groups[0], advantages[0], 0.1) + gradient(groups[1], advantages[1], 0.5)) /
          std::max(1.0, kept));
    }
    const Moments expected = truth_of_pairs(0.1, 0.5, 8, kind == AdvantageKind::kRlooBatchStd);
    EXPECT_NEAR(measured.mean(), expected.mean, kErrors * measured.mean_error());
    EXPECT_NEAR(measured.variance(), expected.variance, kErrors * measured.variance_error());
  }
}

// Off policy: rollouts of one token, sampled with success probability q and learnt from at p. What
// the loss makes of an advantage is the weight that its paper gives a success and a failure.
struct OffPolicy {
  std::string name;
  LossOptions options;
  std::vector<Correction> corrections;
  std::function<double(double now, double then, double advantage)> weight;  // probabilities
};

std::vector<OffPolicy> off_policy_losses() {
  const auto ppo = [](double low, double high) {
    return [=](double now, double then, double advantage) {
      const double ratio = now / then;
      const bool outwards = advantage > 0 ? ratio > 1 + high : ratio < 1 - low;
      return outwards ? 0 : ratio;
    };
  };
  const Correction tis = correction_of("token_tis"), of_sequence = correction_of("seq_tis");
  const auto capped = [](double cap) {
    return [cap](double now, double then, double) { return std::min(now / then, cap); };
  };
  return {{"reinforce with token_tis", {.kind = LossKind::kReinforce}, {tis}, capped(tis.high)},
          {"reinforce with seq_tis",
           {.kind = LossKind::kReinforce},
           {of_sequence},
           capped(of_sequence.high)},
          {"reinforce with all of the ratio",
           {.kind = LossKind::kReinforce},
           {{CorrectionKind::kTokenTis, 0, 1e6}},
           capped(1e6)},
          {"cispo",
           {.kind = LossKind::kCispo, .clip_low = 0.2, .clip_high = 0.28},
           {},
           [](double now, double then, double) { return std::clamp(now / then, 0.8, 1.28); }},
          {"ppo_clip",
           {.kind = LossKind::kPpoClip, .clip_low = 0.2, .clip_high = 0.28},
           {},
           ppo(0.2, 0.28)},
          {"gspo",
           {.kind = LossKind::kGspo,
            .aggregation = Aggregation::kSeqMeanTokenMean,
            .clip_low = 0.2,
            .clip_high = 0.28},
           {},
           ppo(0.2, 0.28)},
          {"dppo_tv",
           {.kind = LossKind::kDppoTv, .divergence = 0.1, .ratio_cap = 1.5},
           {},
           [](double now, double then, double advantage) {
             const bool outwards = advantage > 0 ? now - then > 0.1 : now - then < -0.1;
             return outwards ? 0 : std::min(now / then, 1.5);
           }},
          {"sapo",
           {.kind = LossKind::kSapo, .tau_positive = 1, .tau_negative = 1.05},
           {},
           [](double now, double then, double advantage) {
             const double tau = advantage > 0 ? 1 : 1.05, ratio = now / then;
             const double gate = 1 / (1 + std::exp(-tau * (ratio - 1)));
             return 4 * gate * (1 - gate) * ratio;
           }}};
}

// The gradient that the loss says for a group with the first `k` of `n` rollouts successes.
double loss_gradient(const OffPolicy& loss, std::int64_t k, std::int64_t n, double p, double q) {
  std::vector<double> rewards(static_cast<std::size_t>(n), 0.0), sampler, current;
  std::fill_n(rewards.begin(), k, 1.0);
  for (const double r : rewards) {
    sampler.push_back(std::log(r == 1 ? q : 1 - q));
    current.push_back(std::log(r == 1 ? p : 1 - p));
  }
  const at::Tensor logprobs = at::tensor(current, at::kDouble).requires_grad_();
  const ActionTokens tokens{at::tensor(sampler, at::kDouble),
                            at::tensor(group_advantages(std::vector<std::vector<double>>{rewards},
                                                        {.kind = AdvantageKind::kRloo})[0],
                                       at::kDouble),
                            at::arange(n, at::kLong), at::zeros({n}, at::kLong)};
  LossInputs inputs;
  if (!loss.corrections.empty())
    inputs.weights = apply_corrections(loss.corrections, logprobs.detach() - tokens.anchor_logprobs,
                                       tokens.sequence, n)
                         .weights;
  policy_loss(tokens, logprobs, count_tokens(tokens), loss.options, inputs).loss.backward();
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i)
    sum -= logprobs.grad()[i].item<double>() * (rewards[static_cast<std::size_t>(i)] - p);
  return sum;
}

TEST(EstimatorTruth, LossesWeighWhatAnotherPolicySampledByTheirFormulas) {
  constexpr std::int64_t kGroup = 8;
  std::uint64_t seed = 100;
  for (const OffPolicy& loss : off_policy_losses()) {
    for (const auto& [p, q] : {Pair{0.1, 0.05}, Pair{0.3, 0.5}, Pair{0.5, 0.5}}) {
      const auto formula = [&](double k, double n) {
        const Pair advantage = rloo(k, n);
        if (k == 0 || k == n) return Pair{};
        return Pair{advantage.success * loss.weight(p, q, advantage.success),
                    advantage.failure * loss.weight(1 - p, 1 - q, advantage.failure)};
      };
      Moments expected;
      double squares = 0;
      std::vector<double> of_successes;
      for (std::int64_t k = 0; k <= kGroup; ++k) {
        const auto x = static_cast<double>(k), n = static_cast<double>(kGroup);
        const double chance = choose(n, x) * std::pow(q, x) * std::pow(1 - q, n - x);
        const Pair a = formula(x, n);
        const double g = (x * a.success * (1 - p) - (n - x) * a.failure * p) / n;
        expected.mean += chance * g;
        squares += chance * g * g;
        of_successes.push_back(loss_gradient(loss, k, kGroup, p, q));
      }
      expected.variance = squares - expected.mean * expected.mean;
      Draws draws(++seed);
      Measured measured;
      for (int i = 0; i < 20000; ++i) {
        const auto rewards = draws.rewards(q, kGroup);
        measured.add(of_successes[static_cast<std::size_t>(std::ranges::count(rewards, 1.0))]);
      }
      const std::string where = loss.name + ", p " + std::to_string(p);
      EXPECT_NEAR(measured.mean(), expected.mean, kErrors * measured.mean_error()) << where;
      EXPECT_NEAR(measured.variance(), expected.variance, kErrors * measured.variance_error())
          << where;
      if (loss.name == "reinforce with all of the ratio") {
        EXPECT_NEAR(expected.mean, p * (1 - p), 1e-12) << "unbiased";
      }
    }
  }
}

// A critic that is wrong changes the variance, not the mean: two actions, each right with
// probability p, and a reward where both are. With lambda 1 an advantage is R - V.
TEST(EstimatorTruth, AWrongCriticChangesTheVarianceOfGeneralizedAdvantagesAlone) {
  constexpr double p = 0.4;
  const double values[] = {0.7, 0.3};
  Moments truth[2];
  for (std::size_t t = 0; t < 2; ++t) {
    double squares = 0;
    for (const double first : {0.0, 1.0})
      for (const double second : {0.0, 1.0}) {
        const double chance = (first == 1 ? p : 1 - p) * (second == 1 ? p : 1 - p);
        const double g = (first * second - values[t]) * ((t == 0 ? first : second) - p);
        truth[t].mean += chance * g;
        squares += chance * g * g;
      }
    truth[t].variance = squares - truth[t].mean * truth[t].mean;
    EXPECT_NEAR(truth[t].mean, p * p * (1 - p), 1e-12) << "unbiased";
  }
  const std::uint8_t is_action[] = {1, 1};
  Draws draws(9);
  Measured measured[2];
  for (int i = 0; i < 40000; ++i) {
    const auto right = draws.rewards(p, 2);
    const double rewards[] = {0, right[0] * right[1]};
    const auto advantages = generalized_advantages(rewards, values, is_action, 1, 1).advantages;
    for (std::size_t t = 0; t < 2; ++t) measured[t].add(advantages[t] * (right[t] - p));
  }
  for (std::size_t t = 0; t < 2; ++t) {
    EXPECT_NEAR(measured[t].mean(), truth[t].mean, kErrors * measured[t].mean_error());
    EXPECT_NEAR(measured[t].variance(), truth[t].variance, kErrors * measured[t].variance_error());
  }
}

// A rollout's gradient is (3, 4) and normal noise of variance 50 in each direction.
TEST(EstimatorTruth, GradientNoiseIsPartedFromTheSignal) {
  constexpr int kSteps = 20000;
  std::mt19937_64 random(3);
  std::normal_distribution<double> noise(0, std::sqrt(50.0));
  Measured signal, variance;
  for (int step = 0; step < kSteps; ++step) {
    // Two learners, of 6 and of 10 rollouts.
    GradientNoise parts{.rollouts = 16};
    double whole[2] = {};
    for (const int rollouts : {6, 10}) {
      double part[2] = {};
      for (int i = 0; i < rollouts; ++i) {
        part[0] += (3 + noise(random)) / 16;
        part[1] += (4 + noise(random)) / 16;
      }
      parts.add_part(rollouts, part[0] * part[0] + part[1] * part[1]);
      for (const int k : {0, 1}) whole[k] += part[k];
    }
    const auto found = parts.estimate(whole[0] * whole[0] + whole[1] * whole[1]);
    ASSERT_TRUE(found.has_value());
    signal.add(found->signal);
    variance.add(found->noise);
  }
  EXPECT_NEAR(signal.mean(), 25, kErrors * signal.mean_error());
  EXPECT_NEAR(variance.mean(), 100, kErrors * variance.mean_error());
}

TEST(EstimatorTruth, GradientNoiseOfOnePartIsUnknown) {
  GradientNoise whole{.rollouts = 4};
  whole.add_part(4, 1.0);
  EXPECT_FALSE(whole.estimate(1.0).has_value());
  EXPECT_FALSE(GradientNoise().estimate(0).has_value());
}

// The scaler samples rounds until a step has its signal, a rule that looks at rewards. By Wald's
// identity the sum of the groups' gradients still has the mean of one group's times the mean number
// of groups, for every task.
TEST(EstimatorTruth, ToppingUpLeavesTheSumUnbiased) {
  for (const double p : {0.004, 0.05, 0.4}) {
    Draws draws(static_cast<std::uint64_t>(1000 * p));
    BatchOptions options{.prompts = 8, .group_size = 8};
    options.adaptive = {.target_signal = 4, .min_rollouts = 64, .max_rollouts = 1 << 20};
    Measured sum;  // less what it should be
    double rounds = 0;
    for (int step = 0; step < 1500; ++step) {
      BatchScaler scaler(options, 1000, static_cast<std::uint64_t>(step));
      double error = 0;
      while (const auto round = scaler.next_round()) {
        std::vector<GroupOutcome> outcomes;
        for (const auto task : round->tasks) {
          outcomes.push_back({task, draws.rewards(p, round->group_size)});
          const std::vector<std::vector<double>> group{outcomes.back().rewards};
          error += gradient(group[0], group_advantages(group, {})[0], p) - p * (1 - p);
        }
        scaler.observe(outcomes);
      }
      rounds += static_cast<double>(scaler.rounds()) / 1500;
      sum.add(error);
    }
    EXPECT_NEAR(sum.mean(), 0, kErrors * sum.mean_error()) << p;
    if (p < 0.05) {
      EXPECT_GT(rounds, 2) << "or nothing was topped up";
    }
  }
}

// `denominator: all`: what a step sums up, over the groups that it was expected to have. Its
// direction has no bias, whatever rewards asked for, and its length none beyond that of the
// expectation.
TEST(EstimatorTruth, AStepThatIsToppedUpWeighsTasksAsTheirTruth) {
  const double hard = 0.01, easy = 0.3;
  const auto rate = [&](std::int64_t task) { return task % 2 == 0 ? hard : easy; };
  Draws draws(9);
  BatchOptions options{.prompts = 4, .group_size = 8};
  options.adaptive = {
      .target_signal = 4, .min_rollouts = 32, .max_rollouts = 1 << 16, .select_tasks = false};
  BatchScaler scaler(options, 1000, 3);
  Measured of_easy, difference;
  for (int step = 0; step < 4000; ++step) {
    double sums[2] = {};
    while (const auto round = scaler.next_round()) {
      std::vector<GroupOutcome> outcomes;
      for (const auto task : round->tasks) {
        const double p = rate(task);
        outcomes.push_back({task, draws.rewards(p, round->group_size)});
        const std::vector<std::vector<double>> group{outcomes.back().rewards};
        sums[task % 2] += 2 * gradient(group[0], group_advantages(group, {})[0], p) / (p * (1 - p));
      }
      scaler.observe(outcomes);
    }
    of_easy.add(sums[1] / scaler.expected_groups());
    difference.add((sums[0] - sums[1]) / scaler.expected_groups());
    scaler.end_step();
  }
  EXPECT_NEAR(difference.mean(), 0, kErrors * difference.mean_error());
  EXPECT_NEAR(of_easy.mean(), 1, 0.05);
}

}  // namespace
}  // namespace rollcall
