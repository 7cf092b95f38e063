// SPDX-License-Identifier: Apache-2.0
#include "trainer/preflight.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trainer/counting.h"

namespace rollcall {
namespace {

constexpr double kEnoughMixed = 0.2;    // share of tasks, from which a run has what to learn from
constexpr double kMostTrained = 0.8;    // share of tasks solved always, from which there is none
constexpr double kCanaryLimit = 0.1;    // share of tasks that a canary may pass
constexpr double kNoiseLimit = 0.3;     // disagreement; a coin has 0.5
constexpr double kFaultWarning = 0.05;  // share of rollouts

bool all_same(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [&](double v) { return v == values.front(); });
}

bool flat(const Learnability& l) { return l.share_mixed == 0; }
bool sparse(const Learnability& l) { return l.share_mixed < kEnoughMixed; }

std::string share_text(double share) { return fmt::format("{:.0f} %", 100 * share); }

std::string passed_text(const Canary& c) {
  if (c.name == kUnsolvable)
    return fmt::format(
        "the grader passes {} of {} rollouts of data.canaries, which cannot be solved", c.passed,
        c.graded);
  return fmt::format("the grader passes a worthless answer ({}) on {} of {} tasks", c.name,
                     c.passed, c.graded);
}

// Why the run must not start, apart from what its tasks can teach.
std::vector<std::string> obstacles(const Preflight& p) {
  std::vector<std::string> found;
  for (const Canary& c : p.canaries)
    if (c.name != "shuffled" && c.share() > kCanaryLimit)
      found.push_back(passed_text(c) + ": the policy would learn that; mend the grader");
  if (p.regrading.disagreement > kNoiseLimit)
    found.push_back(fmt::format(
        "the grader does not agree with itself: two gradings of one transcript differ in {} of "
        "cases; mend the grader, or let it decide by more votes",
        share_text(p.regrading.disagreement)));
  if (p.run.advantage == "maxrl" && p.least_reward < 0)
    found.push_back(fmt::format(
        "a rollout earned {:g}, and the advantage maxrl divides by a group's mean reward: let the "
        "grader's scores begin at 0, or use another advantage",
        p.least_reward));
  const double faults = static_cast<double>(p.faults()) / static_cast<double>(p.planned);
  if (p.discard_share > 0 && faults > p.discard_share)
    found.push_back(
        fmt::format("{} of the rollouts were lost to faults, more than alarms."
                    "discard_share: the run would end at once; mend the endpoints",
                    share_text(faults)));
  if (p.disk.all() > p.disk.free)
    found.push_back(
        fmt::format("the run writes {:.1f} GB and run.dir has {:.1f} GB free; make "
                    "room, or keep fewer checkpoints",
                    p.disk.all() / 1e9, p.disk.free / 1e9));
  return found;
}

std::string why_flat(const Learnability& l) {
  if (l.share_one > kMostTrained)
    return "every task is solved every time: there is nothing left to learn; take harder tasks";
  if (l.rollouts == 0)
    return "no rollout got a grade: see why they were left out, and mend grader or flags";
  const std::string tries = fmt::format("in {} rollouts of {} tasks", l.rollouts, l.tasks);
  if (l.passed == 0)
    return "nothing was solved " + tries +
           fmt::format(
               ", so a rollout succeeds in less than {:.2g} % of cases; mend tools and "
               "prompt, or warm the policy up with rollcall sft",
               100 * l.pass_rate_bound.value_or(1));
  return "no task's rewards differ " + tries +
         ": each is solved always or never; take tasks of medium difficulty";
}

// Whether the tasks can teach the policy; true if they can.
bool judge_tasks(const Learnability& l, bool by_critic, PreflightJudgement& j) {
  if (flat(l)) {
    j.reasons.push_back(why_flat(l));
    return false;
  }
  if (sparse(l) && l.share_one > kMostTrained) {
    j.reasons.push_back(fmt::format(
        "{} of the tasks are solved every time and only {} are between: take harder tasks",
        share_text(l.share_one), share_text(l.share_mixed)));
    return false;
  }
  j.reasons.push_back(fmt::format(
      "{} of the tasks had {} in {} tries", share_text(l.share_mixed),
      l.values.empty() ? "rollouts of both outcomes" : "rollouts of different rewards", l.samples));
  if (sparse(l))
    j.reasons.push_back(by_critic
                            ? "outcomes that differ are rare: steps need many rollouts"
                            : "outcomes that differ are rare: let steps grow until they have a "
                              "signal");
  return true;
}

void add_warnings(const Preflight& p, std::vector<std::string>& warnings) {
  for (const Canary& c : p.canaries) {
    if (c.name == "shuffled" && c.share() > kCanaryLimit)
      warnings.push_back(fmt::format(
          "{} of {} answers to another task passed: the tasks can be guessed, or the grader does "
          "not look at the task",
          c.passed, c.graded));
    else if (c.passed > 0 && c.share() <= kCanaryLimit)
      warnings.push_back(passed_text(c) + ": see why");
    if (c.faults > 0)
      warnings.push_back(
          fmt::format("{} answers or rollouts for the canary {} got no grade", c.faults, c.name));
  }
  const RepeatedGrading& r = p.regrading;
  if (r.scores_differ > 0 && r.disagreement <= kNoiseLimit)
    warnings.push_back(
        fmt::format("{} of {} transcripts got several scores when graded again: "
                    "the reward is noisy",
                    r.scores_differ, r.transcripts));
  if (r.faults > 0)
    warnings.push_back(fmt::format(
        "{} of {} repeated gradings got no grade: whether the grader agrees with itself is {}",
        r.faults, r.transcripts * r.times,
        r.faults == r.transcripts * r.times ? "unknown" : "known in part"));
  if (r.first_differs > 0)
    warnings.push_back(
        fmt::format("{} of {} transcripts got another score when graded again than "
                    "at first: does the grader drop a trace's state when it grades?",
                    r.first_differs, r.transcripts));
  const double faults = static_cast<double>(p.faults()) / static_cast<double>(p.planned);
  if (faults > kFaultWarning)
    warnings.push_back(fmt::format("{} of the rollouts were lost to faults", share_text(faults)));
}

double pair_disagreement(const std::vector<bool>& passed) {
  const auto n = static_cast<double>(passed.size());
  const auto k = static_cast<double>(std::count(passed.begin(), passed.end(), true));
  return 2 * k * (n - k) / (n * (n - 1));
}

}  // namespace

RepeatedGrading compare_gradings(std::span<const Regrade> regrades, std::int64_t times,
                                 std::int64_t faults) {
  RepeatedGrading r{
      .transcripts = static_cast<std::int64_t>(regrades.size()), .times = times, .faults = faults};
  double pairs = 0;
  for (const Regrade& g : regrades) {
    if (g.scores.empty()) continue;
    const bool same = all_same(g.scores);
    r.scores_differ += same ? 0 : 1;
    r.first_differs += same && g.scores.front() != g.first ? 1 : 0;
    if (g.scores.size() < 2) continue;
    r.disagreement += pair_disagreement(g.passed);
    ++pairs;
  }
  if (pairs > 0) r.disagreement /= pairs;
  return r;
}

std::int64_t further_samples(std::span<const TaskOutcome> outcomes, std::int64_t tasks,
                             std::int64_t samples, std::int64_t most) {
  double mixed = 0, trained = 0;
  for (const TaskOutcome& o : outcomes) {
    const auto [low, high] = std::minmax_element(o.rewards.begin(), o.rewards.end());
    mixed += *low != *high ? 1 : 0;
    trained += *low == *high && o.passed > 0 ? 1 : 0;
  }
  const auto n = static_cast<double>(tasks);
  if (mixed >= kEnoughMixed * n || trained > kMostTrained * n) return 0;
  return std::clamp<std::int64_t>(most / tasks - samples, 0, samples);
}

double Preflight::rollouts_per_second() const {
  if (!(seconds > 0) || workers == 0) return 0;
  return static_cast<double>(planned) / seconds * run.workers / workers;
}

std::int64_t Preflight::faults() const {
  std::int64_t sum = 0;
  for (const auto& [reason, count] : left_out)
    sum += reason == rollcall::to_string(FaultReason::kMasked) ? 0 : count;
  return sum;
}

PreflightJudgement judge(const Preflight& p) {
  PreflightJudgement j;
  const bool teaches = judge_tasks(p.learnability, p.run.advantage == "gae", j);
  const std::vector<std::string> found = obstacles(p);
  add_warnings(p, j.warnings);
  const bool rare = sparse(p.learnability);
  PlannedRun run = p.run;
  run.rollouts_per_second = p.rollouts_per_second();
  j.advice = advise(run, p.learnability, rare);
  j.as_planned = forecast(run, p.learnability);
  j.as_advised = forecast(advised(run, j.advice, rare), p.learnability);
  if (run.hours > 0 && j.as_advised.hours_of_run > run.hours)
    j.warnings.push_back(fmt::format(
        "run.steps={} takes about {:.3g} hours and there are {:g}: about {:.0f} steps fit",
        run.steps, j.as_advised.hours_of_run, run.hours,
        std::floor(static_cast<double>(run.steps) * run.hours / j.as_advised.hours_of_run)));
  j.verdict = !teaches || !found.empty()  ? PreflightVerdict::kNo
              : j.advice.settings.empty() ? PreflightVerdict::kGo
                                          : PreflightVerdict::kGoWith;
  j.reasons.insert(teaches ? j.reasons.begin() : j.reasons.end(), found.begin(), found.end());
  return j;
}

const char* to_string(PreflightVerdict verdict) {
  return verdict == PreflightVerdict::kGo       ? "go"
         : verdict == PreflightVerdict::kGoWith ? "go_with"
                                                : "no";
}

}  // namespace rollcall
