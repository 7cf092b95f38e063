// SPDX-License-Identifier: Apache-2.0
#include "trainer/alarm_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trainer/metric_names.h"

namespace rollcall {
namespace {

constexpr std::size_t kFewSteps = 5;    // over which shares are averaged
constexpr std::size_t kManySteps = 20;  // in which the spread of rewards may not collapse
constexpr std::size_t kJumpSteps = 10;  // that say how much rewards usually change

template <typename Steps, typename Member>
double mean(const Steps& steps, std::size_t begin, std::size_t count, Member member) {
  double sum = 0;
  for (std::size_t i = begin; i < begin + count; ++i) sum += steps[i].*member;
  return sum / static_cast<double>(count);
}

}  // namespace

std::vector<Alarm> AlarmWatch::add(const MetricList& line) {
  news_.clear();
  evaluation_ = false;
  if (!std::isnan(value_of(line, metric::kRollouts))) look_at_step(line);
  evaluation_ = true;
  look_at_evaluation(line);
  return std::move(news_);
}

MetricList AlarmWatch::metrics() const {
  MetricList list;
  for (const auto& [name, alarm] : active_) list.emplace_back(metric::kAlarm + ("." + name), 1);
  return list;
}

std::vector<Alarm> AlarmWatch::forget_stops() {
  std::vector<Alarm> stops;
  std::erase_if(active_, [&](const auto& entry) {
    if (entry.second.action != AlarmAction::kStop) return false;
    stops.push_back(entry.second);
    return true;
  });
  return stops;
}

void AlarmWatch::judge(const char* name, const AlarmRule& rule, bool met, std::string text,
                       const char* what_to_do) {
  if (!met || rule.action == AlarmAction::kOff) {
    active_.erase(name);
  } else {
    const Alarm alarm{name, std::move(text), what_to_do, rule.action, evaluation_};
    if (active_.emplace(name, alarm).second) news_.push_back(alarm);
  }
}

void AlarmWatch::look_at_evaluation(const MetricList& line) {
  const double canaries = value_of(line, metric::kCanaryPassRate);
  if (!std::isnan(canaries))
    judge("canary", options_.canary, canaries > options_.canary.limit,
          fmt::format("{:.1f} % of the rollouts of canaries pass, which cannot be solved",
                      100 * canaries),
          "the policy exploits the grader: look at them (the run's audit.html lists their rows), "
          "mend the grader, and begin a new run from an earlier checkpoint (rollcall export RUN "
          "--step N): "
          "this one would learn from its old grades again");
  const double by_first = value_of(line, metric::kEvalPassAt1);
  const double by_second = value_of(line, metric::kEvalSecondPassAt1);
  if (std::isnan(by_second)) return;
  if (!first_graders_) first_graders_.emplace(by_first, by_second);
  const auto [first_before, second_before] = *first_graders_;
  const double tasks = value_of(line, metric::kEvalGradedTasks);
  const double error = std::sqrt((first_before * (1 - first_before) + by_first * (1 - by_first)) /
                                 std::max(1.0, tasks));
  judge(
      "second_grader", options_.second_grader,
      by_first - first_before > options_.second_grader.limit * error && by_second < second_before,
      fmt::format("held-out pass@1 rose from {:.1f} to {:.1f} %, and by the second grader fell "
                  "from {:.1f} to {:.1f} %",
                  100 * first_before, 100 * by_first, 100 * second_before, 100 * by_second),
      "the policy learns what the grader pays for and not the task: read the transcripts on which "
      "the two differ, mend the grader, and begin a new run from an earlier checkpoint (rollcall "
      "export RUN --step N): "
      "this one would learn from its old grades again");
}

void AlarmWatch::look_at_step(const MetricList& line) {
  const auto value = [&](const char* name) { return value_of(line, name); };
  steps_.push_back({value(metric::kGroupsSignal) / std::max(1.0, value(metric::kGroups)),
                    value(metric::kLimitShare), value(metric::kEntropyMean),
                    value(metric::kRewardMean), value(metric::kRewardStd), value(metric::kRollouts),
                    value(metric::kPassRate)});
  if (steps_.size() > kManySteps + kFewSteps) steps_.pop_front();
  look_at_signal();
  look_at_policy(line);
  look_at_rewards();
}

void AlarmWatch::look_at_signal() {
  if (steps_.size() < kFewSteps) return;
  const std::size_t begin = steps_.size() - kFewSteps;
  const double signal = mean(steps_, begin, kFewSteps, &Step::signal_share);
  const double passed = mean(steps_, begin, kFewSteps, &Step::pass_rate);
  judge("signal_share", options_.signal_share, signal < options_.signal_share.limit,
        fmt::format("{:.1f} % of the groups of the last {} steps have a signal, at {:.1f} % passed",
                    100 * signal, kFewSteps, 100 * passed),
        passed < 0.5 ? "make steps larger (batch.adaptive, or its max_rollouts), or warm-start the "
                       "policy (rollcall sft)"
                     : "the tasks are nearly solved: take harder ones, or end the run");
  const double cut = mean(steps_, begin, kFewSteps, &Step::limit_share);
  judge("limit_share", options_.limit_share, cut > options_.limit_share.limit,
        fmt::format("{:.1f} % of the rollouts of the last {} steps met a limit", 100 * cut,
                    kFewSteps),
        "raise rollout.max_new_tokens, max_turns, max_tool_calls or context, or price length "
        "(rollout.length_budget)");
}

void AlarmWatch::look_at_policy(const MetricList& line) {
  if (std::isnan(steps_.back().entropy)) return;  // a step without an update says nothing new
  const double ess = value_of(line, metric::kMismatchEssFraction);
  judge("ess", options_.ess, ess < options_.ess.limit,
        fmt::format("sampled tokens are worth {:.1f} % of their number to the learner", 100 * ess),
        "sampler and learner drift apart: see logprob_gap_mean, algorithm.corrections and "
        "policy.max_lag");
  const double k3 = value_of(line, metric::kMismatchK3Mean);
  judge("mismatch_k3", options_.mismatch_k3, k3 > options_.mismatch_k3.limit,
        fmt::format("sampler and learner differ by {:.4g} nats (k3)", k3),
        "see logprob_gap_mean, algorithm.corrections and policy.max_lag");
  const double clipped =
      value_of(line, metric::kClipHighFraction) + value_of(line, metric::kClipLowFraction);
  judge("clip", options_.clip, clipped > options_.clip.limit,
        fmt::format("{:.1f} % of the tokens are clipped", 100 * clipped),
        "lower algorithm.learning_rate, or widen the clip");
  const double entropy = steps_.back().entropy;
  if (!first_entropy_) first_entropy_ = entropy;
  judge(
      "entropy", options_.entropy, entropy < options_.entropy.limit * *first_entropy_,
      fmt::format("entropy is down to {:.4g} nats a token, from {:.4g}", entropy, *first_entropy_),
      "what is left to explore is little: widen algorithm.clip_high, lower the learning rate, or "
      "end the run here");
}

void AlarmWatch::look_at_rewards() {
  const std::size_t n = steps_.size();
  if (n >= kManySteps + kFewSteps) {
    const auto change = [&](auto member) {
      return std::pair(mean(steps_, 0, kFewSteps, member),
                       mean(steps_, n - kFewSteps, kFewSteps, member));
    };
    const auto [spread, spread_now] = change(&Step::reward_std);
    const auto [reward, reward_now] = change(&Step::reward_mean);
    // Rewards that rise to their top lose their spread too, as they should.
    judge(
        "reward_spread", options_.reward_spread,
        spread_now < (1 - options_.reward_spread.limit) * spread && reward_now <= reward,
        fmt::format("the spread of rewards fell from {:.3g} to {:.3g} in {} steps, and their "
                    "mean from {:.3g} to {:.3g}",
                    spread, spread_now, kManySteps, reward, reward_now),
        "the policy has settled on one way to fail: go back to an earlier checkpoint with a lower "
        "learning rate, or a price on leaving it (algorithm.kl)");
  }
  if (n <= kJumpSteps) return;
  const std::size_t begin = n - 1 - kJumpSteps;
  const double usual = mean(steps_, begin, kJumpSteps, &Step::reward_mean);
  double variance = std::pow(steps_.back().reward_std, 2) / steps_.back().rollouts;
  for (std::size_t i = begin; i < n - 1; ++i)
    variance += std::pow(steps_[i].reward_mean - usual, 2) / static_cast<double>(kJumpSteps - 1);
  const double jump = steps_.back().reward_mean - usual;
  judge("reward_jump", options_.reward_jump,
        jump > options_.reward_jump.limit * std::sqrt(variance),
        fmt::format("the mean reward jumped to {:.3g}, from {:.3g} over {} steps",
                    steps_.back().reward_mean, usual, kJumpSteps),
        "see whether it is earned: rollcall report, and the transcripts of that step");
}

}  // namespace rollcall
