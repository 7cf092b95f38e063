// SPDX-License-Identifier: Apache-2.0
#include "trainer/regrade_summary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace rollcall {
namespace {

using Rollouts = std::vector<const Regraded*>;

RolloutFacts facts_of(const Regraded& r, const StoredVerdict& verdict) {
  RolloutFacts facts;
  facts.assignment = r.assignment;
  facts.fault = verdict.fault;
  facts.passed = verdict.graded() && verdict.passed;
  return facts;
}

// Evaluations by the verdicts that `of` picks, of rollouts that both gradings graded: what is left
// out on one side alone would look like a change.
std::vector<EvalFacts> evaluations_by(std::span<const Regraded> all, StoredVerdict Regraded::*of) {
  RunFacts run;
  for (const Regraded& r : all)
    if (r.assignment.split == Split::kValid && r.before.graded() && r.after.graded())
      run.valid.push_back(facts_of(r, r.*of));
  return evaluations_of(run);
}

// A rollout that should have a new grade and got none says nothing of the new grader, on either
// side. What it masks is left out on its side alone.
bool counts(const Regraded& r, StoredVerdict Regraded::*of) {
  return (r.*of).graded() && change_of(r) != GradeChange::kUngraded;
}

// What the advantages compare in a group, by the verdicts that `of` picks.
std::vector<double> compared_by(const Rollouts& group, StoredVerdict Regraded::*of,
                                AdvantageKind kind) {
  std::vector<double> values;
  for (const Regraded* r : group)
    if (counts(*r, of))
      values.push_back(compares_passes(kind) ? ((r->*of).passed ? 1.0 : 0.0) : (r->*of).reward);
  return values;
}

// Row -> sign of the advantage. Groups of fewer than two have none.
std::map<std::int64_t, int> signs_by(const std::map<std::int64_t, Rollouts>& groups,
                                     StoredVerdict Regraded::*of, const AdvantageOptions& options) {
  std::vector<std::vector<double>> rewards;
  std::vector<const Rollouts*> kept;
  for (const auto& [id, group] : groups) {
    auto one = compared_by(group, of, options.kind);
    if (one.size() < 2) continue;
    rewards.push_back(std::move(one));
    kept.push_back(&group);
  }
  const auto advantages = group_advantages(rewards, options);
  std::map<std::int64_t, int> signs;
  for (std::size_t g = 0; g < kept.size(); ++g) {
    std::size_t i = 0;
    for (const Regraded* r : *kept[g]) {
      if (!counts(*r, of)) continue;
      const double a = advantages[g][i++];
      signs[r->row] = a > 0 ? 1 : a < 0 ? -1 : 0;
    }
  }
  return signs;
}

std::int64_t count_signs(const std::map<std::int64_t, Rollouts>& groups,
                         const AdvantageOptions& options) {
  const auto before = signs_by(groups, &Regraded::before, options);
  const auto after = signs_by(groups, &Regraded::after, options);
  return std::ranges::count_if(before, [&](const auto& sign) {
    const auto found = after.find(sign.first);
    return found != after.end() && found->second != sign.second;
  });
}

bool informative(const std::vector<double>& rewards) {
  return rewards.size() > 1 && has_signal(rewards);
}

StepRegrade step_of(std::int64_t step, const Rollouts& rollouts, const AdvantageOptions& options) {
  StepRegrade result;
  result.step = step;
  std::map<std::int64_t, Rollouts> groups;
  for (const Regraded* r : rollouts) {
    groups[r->assignment.group].push_back(r);
    if (!r->before.graded() || !r->after.graded()) continue;
    ++result.rollouts;
    result.pass_before += r->before.passed ? 1 : 0;
    result.pass_after += r->after.passed ? 1 : 0;
  }
  const auto n = static_cast<double>(std::max<std::int64_t>(1, result.rollouts));
  result.pass_before /= n;
  result.pass_after /= n;
  result.groups = static_cast<std::int64_t>(groups.size());
  for (const auto& [id, group] : groups) {
    const bool before = informative(compared_by(group, &Regraded::before, options.kind));
    const bool after = informative(compared_by(group, &Regraded::after, options.kind));
    result.signal_before += before ? 1 : 0;
    result.signal_after += after ? 1 : 0;
    result.signal_changed += before != after ? 1 : 0;
  }
  const bool below_zero = std::ranges::any_of(
      rollouts, [](const Regraded* r) { return r->before.reward < 0 || r->after.reward < 0; });
  const bool comparable =
      options.kind != AdvantageKind::kGae && !(options.kind == AdvantageKind::kMaxRl && below_zero);
  if (comparable) result.signs_changed = count_signs(groups, options);
  return result;
}

void add_evaluations(RegradeSummary& summary, std::span<const Regraded> all) {
  const auto before = evaluations_by(all, &Regraded::before);
  const auto after = evaluations_by(all, &Regraded::after);
  for (std::size_t i = 0; i < before.size(); ++i)
    summary.evaluations.push_back({before[i].step, before[i].pass_at_1, after[i].pass_at_1});
  if (before.size() < 2) return;
  summary.gain = GainRegrade{before.front().step, before.back().step,
                             paired_change(before.front(), before.back()),
                             paired_change(after.front(), after.back())};
}

double size_of(const Regraded& r) {
  if (r.before.graded() && r.after.graded())
    return std::max(std::abs(r.after.reward - r.before.reward),
                    std::abs(r.after.score - r.before.score));
  return 0;
}

std::vector<Regraded> most_changed(std::span<const Regraded> all, std::size_t most) {
  std::vector<const Regraded*> changed;
  for (const Regraded& r : all)
    if (r.again && change_of(r) != GradeChange::kSame && change_of(r) != GradeChange::kUngraded)
      changed.push_back(&r);
  std::ranges::stable_sort(changed, [](const Regraded* a, const Regraded* b) {
    return std::pair(-size_of(*a), a->row) < std::pair(-size_of(*b), b->row);
  });
  changed.resize(std::min(changed.size(), most));
  std::vector<Regraded> result;
  for (const Regraded* r : changed) result.push_back(*r);
  return result;
}

}  // namespace

StoredVerdict verdict_of(const Trajectory& t) {
  return {t.fault,
          t.grade.score,
          t.grade.reward,
          t.fault == FaultReason::kNone && t.grade.passed,
          t.grade.explanation,
          t.fault_detail};
}

const char* to_string(GradeChange change) {
  switch (change) {
    case GradeChange::kSame:
      return "same";
    case GradeChange::kPassToFail:
      return "pass_to_fail";
    case GradeChange::kFailToPass:
      return "fail_to_pass";
    case GradeChange::kScore:
      return "score_changed";
    case GradeChange::kMasked:
      return "masked_now";
    case GradeChange::kGradedNow:
      return "graded_now";
    case GradeChange::kUngraded:
      return "ungraded";
  }
  return "unknown";
}

GradeChange change_of(const Regraded& r) {
  if (infrastructure_failed(r.after.fault)) return GradeChange::kUngraded;
  if (!r.after.graded()) return r.before.graded() ? GradeChange::kMasked : GradeChange::kSame;
  if (!r.before.graded()) return GradeChange::kGradedNow;
  if (r.before.passed != r.after.passed)
    return r.after.passed ? GradeChange::kFailToPass : GradeChange::kPassToFail;
  const bool same = r.before.score == r.after.score && r.before.reward == r.after.reward;
  return same ? GradeChange::kSame : GradeChange::kScore;
}

RegradeSummary summarize_regrade(std::span<const Regraded> all, const AdvantageOptions& options,
                                 std::size_t most) {
  RegradeSummary summary;
  std::map<std::int64_t, Rollouts> steps;
  for (const Regraded& r : all) {
    if (r.again) {
      ++summary.asked;
      ++summary.changes[static_cast<std::size_t>(change_of(r))];
    }
    if (r.assignment.split == Split::kTrain) steps[r.assignment.step].push_back(&r);
  }
  for (const auto& [step, rollouts] : steps) {
    if (std::ranges::none_of(rollouts, &Regraded::again)) continue;
    summary.steps.push_back(step_of(step, rollouts, options));
  }
  add_evaluations(summary, all);
  summary.most_changed = most_changed(all, most);
  return summary;
}

}  // namespace rollcall
