// SPDX-License-Identifier: Apache-2.0
#include "trainer/batch_scaler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "model/sampling.h"
#include "trainer/advantages.h"

namespace rollcall {
namespace {

constexpr double kFade = 0.6;        // of the signal of earlier steps
constexpr double kFadeGrowth = 0.9;  // of how much further rounds added
constexpr double kEnough = 0.7;      // of the target: a further round is not worth its wait
constexpr double kMostChange = 2;    // between steps
constexpr double kHysteresis = 0.2;  // a smaller change is noise
constexpr std::int64_t kMostMembers = 256;
constexpr double kExplore = 0.05;    // least chance that a task is taken when its turn comes
constexpr double kSeldom = 0.5;      // a smaller chance, and the task is deferred or retired
constexpr double kUsualRate = 0.02;  // of the average over tasks that were looked at
constexpr double kLeastStep = 0.25;
constexpr std::int64_t kLeastGroup = 8;
constexpr double kRareSuccesses = 1.5;

double group_mass(std::span<const double> rewards) {
  const auto n = static_cast<double>(rewards.size());
  if (n < 2) return 0;
  double mean = 0, squares = 0;
  for (const double r : rewards) mean += r / n;
  for (const double r : rewards) squares += (r - mean) * (r - mean);
  return squares * n / (n - 1);
}

}  // namespace

double signal_mass(std::span<const GroupOutcome> groups) {
  double mass = 0;
  for (const auto& group : groups) mass += group_mass(group.rewards);
  return mass;
}

BatchScaler::BatchScaler(const BatchOptions& options, std::int64_t tasks, std::uint64_t seed)
    : options_(options),
      tasks_(tasks),
      seed_(seed),
      pool_(tasks, seed),
      recent_mass_(options.adaptive.target_signal),
      recent_rollouts_(static_cast<double>(options.prompts * options.group_size)),
      planned_(options.prompts * options.group_size) {}

std::optional<BatchScaler::Round> BatchScaler::next_round() {
  std::optional<Round> round;
  if (rounds_ > 0) {
    round = further_round();
  } else {
    plan_ahead(1);
    round = std::move(ahead_.front());
    ahead_.pop_front();
  }
  if (!round) return round;
  rollouts_ += round->rollouts();
  if (rounds_ == 0) first_groups_ = static_cast<double>(round->tasks.size());
  groups_ += static_cast<double>(round->tasks.size());
  return round;
}

void BatchScaler::plan_ahead(std::int64_t steps) {
  while (std::ssize(ahead_) < steps) ahead_.push_back(numbered(first_round()));
}

BatchScaler::Round BatchScaler::numbered(Round round) {
  round.first_group = next_group_;
  next_group_ += static_cast<std::int64_t>(round.tasks.size());
  return round;
}

// One round, or with `resample` more of the same size until enough groups have signal (DAPO,
// 2503.14476; here no group with signal is thrown away).
std::optional<BatchScaler::Round> BatchScaler::further_round() {
  std::optional<Round> round;
  if (options_.adaptive.target_signal > 0)
    round = top_up();
  else if (rounds_ < options_.resample && informative_ < options_.prompts)
    round = fixed_round();
  if (round) round = numbered(std::move(*round));
  return round;
}

BatchScaler::Round BatchScaler::fixed_round() {
  return {0, pool_.draw(options_.prompts), options_.group_size, "as configured"};
}

double BatchScaler::expected_signal() const {
  return (recent_mass_ + mass_) / (recent_rollouts_ + static_cast<double>(rollouts_));
}

BatchScaler::Round BatchScaler::first_round() {
  const AdaptiveOptions& a = options_.adaptive;
  if (a.target_signal == 0) return fixed_round();
  const auto before = static_cast<double>(planned_);
  const double rate = expected_signal();
  double wanted = rate > 0 ? a.target_signal / rate : kMostChange * before;
  // A step that begins too small is topped up; one that begins too large has spent its rollouts.
  const double least = a.top_up ? 0 : before / kMostChange;
  wanted = std::clamp(wanted, least, before * kMostChange);
  if (std::abs(wanted / before - 1) < kHysteresis) wanted = before;
  wanted =
      std::clamp(wanted, static_cast<double>(a.min_rollouts), static_cast<double>(a.max_rollouts));
  return make_round(
      wanted, a.max_rollouts,
      fmt::format("a rollout gave a signal of {:.4g} lately, {:g} are wanted; {} before", rate,
                  a.target_signal, planned_));
}

std::optional<BatchScaler::Round> BatchScaler::top_up() {
  const AdaptiveOptions& a = options_.adaptive;
  if (!a.top_up || mass_ >= kEnough * a.target_signal) return {};
  const auto used = static_cast<double>(rollouts_);
  const std::int64_t left = a.max_rollouts - rollouts_;
  const double rate = expected_signal();
  const double missing = rate > 0 ? (a.target_signal - mass_) / rate : used;
  const double wanted = std::min(std::clamp(missing, used / 4, used), static_cast<double>(left));
  if (wanted < static_cast<double>(options_.group_size)) return {};
  return make_round(
      wanted, left,
      fmt::format("{} rollouts gave {:.3g} of {:g}", rollouts_, mass_, a.target_signal));
}

// Prompts come before group size: at low success rates the noise of a rollout hardly depends on
// the size of its group, and what the learner has to compute does.
BatchScaler::Round BatchScaler::make_round(double rollouts, std::int64_t most, std::string reason) {
  std::int64_t size = options_.group_size;
  const auto prompts = [&] {
    const std::int64_t nearest = std::llround(rollouts / static_cast<double>(size));
    return std::max<std::int64_t>(1, std::min<std::int64_t>(nearest, most / size));
  };
  while (prompts() > tasks_ && 2 * size <= kMostMembers) size *= 2;
  return {0, draw(prompts()), size, std::move(reason)};
}

double BatchScaler::draw_chance(std::int64_t task) const {
  return std::max(kExplore, beliefs_.signal(task) / usual_signal_);
}

TaskCounts BatchScaler::task_counts() const {
  TaskCounts counts;
  for (const auto& [task, own] : beliefs_.state().tasks) {
    ++counts.tried;
    if (!options_.adaptive.select_tasks || draw_chance(task) >= kSeldom) continue;
    ++(beliefs_.rate(task) < 0.5 ? counts.deferred : counts.retired);
  }
  return counts;
}

std::vector<std::int64_t> BatchScaler::draw(std::int64_t count) {
  if (!options_.adaptive.select_tasks) return pool_.draw(count);
  std::vector<std::int64_t> rows;
  while (static_cast<std::int64_t>(rows.size()) < count) {
    const std::uint64_t path[] = {static_cast<std::uint64_t>(pool_.drawn()), 1};
    const std::int64_t row = pool_.draw(1).front();
    const double signal = beliefs_.signal(row);
    usual_signal_ =
        usual_signal_ == 0 ? signal : usual_signal_ + kUsualRate * (signal - usual_signal_);
    if (uniform_draw(derive_seed(seed_, path), 0) < draw_chance(row)) rows.push_back(row);
  }
  return rows;
}

void BatchScaler::observe(std::span<const GroupOutcome> groups) {
  ++rounds_;
  for (const auto& group : groups) {
    informative_ += has_signal(group.rewards) ? 1 : 0;
    for (const double r : group.rewards) low_ = std::min(low_, r), high_ = std::max(high_, r);
  }
  const double range = high_ - low_;
  mass_ += signal_mass(groups) / (range * range);
  for (const auto& group : groups) {
    double successes = 0;
    for (const double r : group.rewards) successes += (r - low_) / range;
    beliefs_.add(group.task, successes, static_cast<double>(group.rewards.size()) - successes);
  }
}

void BatchScaler::end_step() {
  recent_mass_ = kFade * recent_mass_ + mass_;
  recent_rollouts_ = kFade * recent_rollouts_ + static_cast<double>(rollouts_);
  planned_ = rollouts_;
  if (mass_ > 0) beliefs_.update();
  // The mean of all steps at first, then a fading one.
  const double share = std::max(1 - kFadeGrowth, 1 / static_cast<double>(++steps_));
  growth_ += share * (groups_ / first_groups_ - growth_);
  groups_ = 0;
  mass_ = 0;
  rollouts_ = rounds_ = informative_ = 0;
}

bool BatchScaler::rare_success(std::int64_t task, std::int64_t group_size) const {
  const bool tried = beliefs_.state().tasks.contains(task);
  return group_size >= kLeastGroup &&
         (!tried || beliefs_.rate(task) * static_cast<double>(group_size) < kRareSuccesses);
}

double BatchScaler::step_size() const {
  const double target = options_.adaptive.target_signal;
  return target > 0 ? std::clamp(std::sqrt(mass_ / target), kLeastStep, 1.0) : 1;
}

BatchScaler BatchScaler::with(const BatchOptions& options) const {
  BatchScaler changed(options, tasks_, seed_);
  changed.restore(state());
  return changed;
}

std::string BatchScaler::state() const {
  auto tasks = nlohmann::json::array();
  const TaskBeliefs::State& beliefs = beliefs_.state();
  for (const auto& [task, c] : beliefs.tasks)
    tasks.push_back({task, c.successes, c.failures, c.update});
  auto ahead = nlohmann::json::array();
  for (const Round& r : ahead_) ahead.push_back({r.first_group, r.group_size, r.reason, r.tasks});
  return nlohmann::json{{"drawn", pool_.drawn()},
                        {"next_group", next_group_},
                        {"ahead", std::move(ahead)},
                        {"usual_signal", usual_signal_},
                        {"recent", {recent_mass_, recent_rollouts_}},
                        {"range", {low_, high_}},
                        {"planned", planned_},
                        {"growth", {growth_, steps_}},
                        {"updates", beliefs.updates},
                        {"rates", {beliefs.recent.successes, beliefs.recent.failures}},
                        {"tasks", std::move(tasks)}}
      .dump();
}

void BatchScaler::restore(const std::string& text) try {
  const auto state = nlohmann::json::parse(text);
  BatchScaler read(options_, tasks_, seed_);
  read.pool_.restore(state.at("drawn").get<std::int64_t>());
  state.at("next_group").get_to(read.next_group_);
  for (const auto& round : state.at("ahead")) {
    Round& r = read.ahead_.emplace_back();
    round.at(0).get_to(r.first_group);
    round.at(1).get_to(r.group_size);
    round.at(2).get_to(r.reason);
    round.at(3).get_to(r.tasks);
  }
  state.at("usual_signal").get_to(read.usual_signal_);
  state.at("recent").at(0).get_to(read.recent_mass_);
  state.at("recent").at(1).get_to(read.recent_rollouts_);
  state.at("range").at(0).get_to(read.low_);
  state.at("range").at(1).get_to(read.high_);
  state.at("planned").get_to(read.planned_);
  state.at("growth").at(0).get_to(read.growth_);
  state.at("growth").at(1).get_to(read.steps_);
  TaskBeliefs::State beliefs;
  state.at("updates").get_to(beliefs.updates);
  state.at("rates").at(0).get_to(beliefs.recent.successes);
  state.at("rates").at(1).get_to(beliefs.recent.failures);
  for (const auto& task : state.at("tasks"))
    beliefs.tasks[task.at(0).get<std::int64_t>()] = {
        task.at(1).get<double>(), task.at(2).get<double>(), task.at(3).get<std::int64_t>()};
  read.beliefs_.restore(std::move(beliefs));
  *this = std::move(read);
} catch (const nlohmann::json::exception& error) {
  throw Error(std::string("the checkpoint's state of the batch cannot be read: ") +
              json_reason(error));
}

}  // namespace rollcall
