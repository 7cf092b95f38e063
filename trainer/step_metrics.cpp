// SPDX-License-Identifier: Apache-2.0
#include "trainer/step_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "trainer/arrivals.h"
#include "trainer/metric_names.h"

namespace rollcall {
namespace {

// Of the rollouts that were graded a second time, those that ended so.
double count(std::span<const Collected> collected, Confirmation end) {
  return static_cast<double>(std::count_if(
      collected.begin(), collected.end(),
      [&](const Collected& c) { return confirmation_of(c.trajectory->grade) == end; }));
}

std::size_t recovered_of(std::span<const Collected> collected) {
  return static_cast<std::size_t>(std::count_if(collected.begin(), collected.end(),
                                                [](const Collected& c) { return c.recovered; }));
}

// Of what was sampled while the step was collected, or where rollouts overlap with updates in all
// of the step's time; NaN if all came from the journal.
double tokens_per_second(const StepMetrics& m, std::span<const Collected> collected) {
  if (recovered_of(collected) == collected.size()) return std::numeric_limits<double>::quiet_NaN();
  double tokens = 0;
  for (const auto& c : collected)
    tokens += c.recovered ? 0 : static_cast<double>(sampled_tokens(*c.trajectory));
  const double seconds = m.lag ? m.seconds_step : m.seconds_rollout;
  return seconds > 0 ? tokens / seconds : 0;
}

// Of the tokens that engines without a cache would have prefilled, those that ours did not: prompts
// that a group shares and earlier turns. NaN where no turn was sampled.
double prefix_cache_hit_rate(std::span<const Collected> collected) {
  std::int64_t context = 0, computed = 0;
  for (const auto& c : collected) {
    context += context_tokens(*c.trajectory);
    computed += c.trajectory->prefill_tokens;
  }
  if (context == 0) return std::numeric_limits<double>::quiet_NaN();
  return 1 - static_cast<double>(computed) / static_cast<double>(context);
}

std::string speed_text(const StepMetrics& m, std::span<const Collected> collected) {
  const std::size_t recovered = recovered_of(collected);
  if (recovered == collected.size()) return "from the journal";
  const std::string speed = fmt::format("{:.0f} tok/s", tokens_per_second(m, collected));
  if (recovered == 0) return speed;
  return fmt::format("{} ({} of {} rollouts from the journal)", speed, recovered, collected.size());
}

MetricList critic_metrics(const CriticStats& critic) {
  namespace n = metric;
  return {{n::kValueLoss, critic.learner.loss},
          {n::kExplainedVariance, critic.explained_variance},
          {n::kValueMean, critic.value_mean},
          {n::kReturnMean, critic.return_mean},
          {n::kValueClipFraction, critic.learner.clip_fraction},
          {n::kCriticGradNormL2, critic.learner.grad_norm_l2}};
}

std::string critic_text(const StepUpdate& update) {
  if (!update.critic) return "";
  return fmt::format("  explained variance {:.2f}{}", update.critic->explained_variance,
                     update.policy_learns ? "" : "  critic alone");
}

struct Spread {
  double mean, deviation;  // NaN of no values
};
Spread spread_of(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  for (const double v : values) squares += (v - sum / n) * (v - sum / n);
  return {sum / n, std::sqrt(squares / n)};
}

// How the graded rollouts spend and end, beside what they earn: reward hacking shows here first.
MetricList behavior_metrics(std::span<const Collected> collected) {
  std::vector<double> rewards, tokens, calls;
  double limits = 0, voids = 0;
  for (const Collected& c : collected) {
    const Trajectory& t = *c.trajectory;
    if (t.fault != FaultReason::kNone) continue;
    rewards.push_back(t.grade.reward);
    tokens.push_back(static_cast<double>(sampled_tokens(t)));
    calls.push_back(static_cast<double>(t.tool_events.size()));
    limits += is_limit(t.end) ? 1 : 0;
    voids += has_void_turn(t) ? 1 : 0;
  }
  const auto n = static_cast<double>(rewards.size());
  namespace m = metric;
  return {{m::kRewardStd, spread_of(rewards).deviation},
          {m::kLimitShare, limits / n},
          {m::kVoidTurnShare, voids / n},
          {m::kRewardLengthCorrelation, correlation(tokens, rewards)},
          {m::kRewardCallsCorrelation, correlation(calls, rewards)}};
}

// What a passed and a failed rollout cost, each by its middle and its tail.
MetricList outcome_metrics(std::span<const Collected> collected) {
  struct Cost {
    const char* name;
    double (*of)(const Trajectory&);
  };
  static constexpr Cost kCosts[] = {
      {metric::kTurns, [](const Trajectory& t) { return static_cast<double>(t.turns); }},
      {metric::kTokens, [](const Trajectory& t) { return static_cast<double>(sampled_tokens(t)); }},
      {metric::kToolCalls,
       [](const Trajectory& t) { return static_cast<double>(t.tool_events.size()); }},
      {metric::kRolloutSeconds, [](const Trajectory& t) { return t.wall_time_s; }}};
  MetricList list;
  for (const bool passed : {true, false}) {
    for (const auto& [name, cost] : kCosts) {
      std::vector<double> values;
      for (const Collected& c : collected)
        if (c.trajectory->fault == FaultReason::kNone && c.trajectory->grade.passed == passed)
          values.push_back(cost(*c.trajectory));
      if (values.empty()) continue;
      const std::string whose = passed ? metric::kOfPassed : metric::kOfFailed;
      list.emplace_back(name + ("_p50" + whose), percentile(values, 0.5));
      list.emplace_back(name + ("_p95" + whose), percentile(values, 0.95));
    }
  }
  return list;
}

int skipped_updates(const StepUpdate& update) {
  return (update.learner.skipped ? 1 : 0) + (update.critic && update.critic->learner.skipped);
}

}  // namespace

MetricList step_metrics(const StepMetrics& m, const StepSignal& s,
                        std::span<const Collected> collected) {
  std::vector<double> calls, seconds;
  double errors = 0;
  for (const auto& c : collected) {
    calls.push_back(static_cast<double>(c.trajectory->tool_events.size()));
    seconds.push_back(c.trajectory->wall_time_s);
    for (const auto& e : c.trajectory->tool_events) errors += e.is_error ? 1 : 0;
  }
  double tokens = 0;
  for (const auto& c : collected) tokens += static_cast<double>(sampled_tokens(*c.trajectory));
  const Mismatch& gap = m.update.learner.mismatch;
  const Spread advantages = spread_of(m.advantages);
  // Of a step in which the critic learns alone the policy's numbers are unknown.
  const auto of_policy = [&](double value) {
    return m.update.policy_learns ? value : std::numeric_limits<double>::quiet_NaN();
  };
  namespace n = metric;
  MetricList list{{n::kRewardMean, s.reward_mean},
                  {n::kPassRate, s.pass_rate},
                  {n::kGroups, static_cast<double>(s.groups)},
                  {n::kRounds, static_cast<double>(m.rounds)},
                  {n::kSignalMass, m.signal_mass},
                  {n::kTasksTried, static_cast<double>(m.tasks.tried)},
                  {n::kTasksDeferred, static_cast<double>(m.tasks.deferred)},
                  {n::kTasksRetired, static_cast<double>(m.tasks.retired)},
                  {n::kGroupsSignal, static_cast<double>(s.groups_signal)},
                  {n::kGroupsAllZero, static_cast<double>(s.groups_all_zero)},
                  {n::kGroupsAllOne, static_cast<double>(s.groups_all_one)},
                  {n::kGroupsPassed, static_cast<double>(s.groups_passed)},
                  {n::kGroupsDropped, static_cast<double>(s.groups_dropped)},
                  {n::kRollouts, static_cast<double>(s.rollouts)},
                  {n::kFaults, static_cast<double>(s.faults)},
                  {n::kMasked, static_cast<double>(s.masked)},
                  {n::kConfirmed, count(collected, Confirmation::kConfirmed)},
                  {n::kUnconfirmed, count(collected, Confirmation::kUnconfirmed)},
                  {n::kConfirmFaults, count(collected, Confirmation::kFault)},
                  {n::kTokensSampled, tokens},
                  {n::kTokensPerSecond, tokens_per_second(m, collected)},
                  {n::kPrefixCacheHitRate, prefix_cache_hit_rate(collected)},
                  {n::kToolCallsP50, percentile(calls, 0.5)},
                  {n::kToolCallsP95, percentile(calls, 0.95)},
                  {n::kToolErrors, errors},
                  {n::kRolloutSecondsP50, percentile(seconds, 0.5)},
                  {n::kRolloutSecondsP95, percentile(seconds, 0.95)},
                  {n::kSecondsStep, m.seconds_step},
                  {n::kSecondsRollout, m.seconds_rollout},
                  {n::kSecondsUpdate, m.seconds_update},
                  {n::kSecondsPublish, m.seconds_publish},
                  {n::kSecondsJournal, m.seconds_journal},
                  {n::kLoss, of_policy(m.update.learner.loss)},
                  {n::kGradNormL2, of_policy(m.update.learner.grad_norm_l2)},
                  {n::kLearningRate, m.learning_rate},
                  {n::kLogprobGapMax, of_policy(gap.gap_max)},
                  {n::kLogprobGapMean, of_policy(gap.gap_mean())},
                  {n::kRatioMean, of_policy(gap.ratio_mean())},
                  {n::kMismatchK3Mean, of_policy(gap.k3_mean())},
                  {n::kMismatchChi2Mean, of_policy(gap.chi2_mean())},
                  {n::kMismatchEssFraction, of_policy(gap.ess_fraction())},
                  {n::kClipHighFraction, m.update.loss.clip_high_fraction},
                  {n::kClipLowFraction, m.update.loss.clip_low_fraction},
                  {n::kTokensRejected, m.update.loss.tokens_rejected},
                  {n::kTokensRejectedPositive, m.update.loss.tokens_rejected_positive},
                  {n::kAdvantageMean, advantages.mean},
                  {n::kAdvantageStd, advantages.deviation},
                  {n::kSkippedUpdates, static_cast<double>(skipped_updates(m.update))},
                  {n::kOptimizerSteps, static_cast<double>(m.update.optimizer_steps)},
                  {n::kGradientSpikes, m.update.learner.spiked ? 1.0 : 0.0},
                  {n::kWorkers, static_cast<double>(m.workers)},
                  {n::kWorkersLost, static_cast<double>(m.workers_lost)},
                  {n::kEntropyMean, m.update.learner.action_tokens > 0
                                        ? of_policy(m.update.learner.entropy_mean)
                                        : std::numeric_limits<double>::quiet_NaN()}};
  for (const MetricList& more : {behavior_metrics(collected), outcome_metrics(collected)})
    list.insert(list.end(), more.begin(), more.end());
  if (m.update.learner.noise) {
    list.emplace_back(n::kGradSignalSquared, of_policy(m.update.learner.noise->signal));
    list.emplace_back(n::kGradNoiseVariance, of_policy(m.update.learner.noise->noise));
  }
  if (m.update.learner.seconds_gradient_sum)
    list.emplace_back(n::kSecondsGradientSum, *m.update.learner.seconds_gradient_sum);
  if (m.seconds_load_max) list.emplace_back(n::kSecondsLoadMax, *m.seconds_load_max);
  if (m.update.loss.reference_kl_mean)
    list.emplace_back(n::kReferenceKlPerToken, *m.update.loss.reference_kl_mean);
  // Further rounds follow where tasks were hard: their mean is of other tasks than the first's.
  if (m.rounds > 1)
    list.emplace_back(n::kRewardMeanFirstRound,
                      reward_mean(collected.first(static_cast<std::size_t>(m.first_round))));
  if (m.lag) {
    list.emplace_back(n::kVersionLagMean, m.lag->mean);
    list.emplace_back(n::kVersionLagMax, m.lag->max);
    list.emplace_back(n::kMixedVersionShare, m.lag->mixed_share);
  }
  if (!m.penalties.empty())
    list.emplace_back(n::kRewardPenaltyMean, std::reduce(m.penalties.begin(), m.penalties.end()) /
                                                 static_cast<double>(std::max<std::int64_t>(
                                                     1, s.rollouts - s.faults - s.masked)));
  if (m.update.critic) {
    const MetricList more = critic_metrics(*m.update.critic);
    list.insert(list.end(), more.begin(), more.end());
  }
  return list;
}

MetricList evaluation_metrics(const Evaluation& e) {
  MetricList list{{metric::kEvalPassAt1, e.pass_at_1},
                  {metric::kEvalTasks, static_cast<double>(e.tasks)},
                  {metric::kEvalGradedTasks, static_cast<double>(e.graded_tasks)},
                  {metric::kEvalFaults, static_cast<double>(e.faults)},
                  {metric::kEvalMasked, static_cast<double>(e.masked)}};
  for (const auto& [k, rate] : e.pass_at_k)
    list.emplace_back(metric::kEvalPassAt + std::to_string(k), rate);
  return list;
}

std::string step_line(const StepMetrics& m, const StepSignal& s,
                      std::span<const Collected> collected) {
  Arrivals arrivals;
  for (const Collected& c : collected) arrivals.add(*c.trajectory);
  const bool graded = s.rollouts > s.faults + s.masked;
  return fmt::format(
      "{}  signal {}/{} groups{}  {}  {:.1f} s{}{}{}",
      graded ? fmt::format("reward {:.3f}  pass@1 {:.1f} %", s.reward_mean, 100 * s.pass_rate)
             : "no rollout graded",
      s.groups_signal, s.groups, arrivals.left_out(), speed_text(m, collected), m.seconds_step,
      critic_text(m.update),
      m.update.policy_learns && m.update.learner.action_tokens == 0
          ? "  no update: no group has a signal"
          : "",
      skipped_updates(m.update) > 0 ? "  update skipped: gradient not finite"
      : m.update.learner.spiked     ? "  update skipped: gradient far above the usual"
                                    : "");
}

std::string evaluation_line(const Evaluation& e) {
  std::string line = "held-out pass@1 unknown: no rollout graded";
  if (e.graded_tasks > 0)
    line = fmt::format("held-out pass@1 {:.1f} % ({:.1f} - {:.1f} %, {} tasks)", 100 * e.pass_at_1,
                       100 * e.low_95, 100 * e.high_95, e.graded_tasks);
  if (e.faults + e.masked > 0)
    line += fmt::format(
        "; left out: {} of {} rollouts ({} faults, {} masked), and with them {} of {} tasks",
        e.faults + e.masked, e.tasks * e.samples, e.faults, e.masked, e.tasks - e.graded_tasks,
        e.tasks);
  return line;
}

}  // namespace rollcall
