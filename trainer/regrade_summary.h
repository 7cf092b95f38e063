// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comms/trajectory.h"
#include "trainer/advantages.h"
#include "trainer/run_facts.h"

namespace rollcall {

// What a grading made of a rollout.
struct StoredVerdict {
  FaultReason fault = FaultReason::kNone;  // kNone: it has a grade
  double score = 0, reward = 0;
  bool passed = false;
  std::string explanation, detail;  // the grader's words; of a fault or mask, why

  bool graded() const { return fault == FaultReason::kNone; }
};
StoredVerdict verdict_of(const Trajectory&);

// A stored rollout before and after it was graded again.
struct Regraded {
  std::int64_t row = 0;  // of the journal
  Assignment assignment;
  std::string trace_id;
  bool again = false;  // false: it was not to be graded again, and both verdicts are the old one
  StoredVerdict before, after;
};

enum class GradeChange {
  kSame,
  kPassToFail,
  kFailToPass,
  kScore,      // or reward
  kMasked,     // had a grade, and is left out now
  kGradedNow,  // was left out, and has a grade
  kUngraded,   // no new grade
};
inline constexpr std::size_t kGradeChanges = 7;
const char* to_string(GradeChange);
GradeChange change_of(const Regraded&);

struct StepRegrade {
  std::int64_t step = 0, rollouts = 0;     // graded before and after
  double pass_before = 0, pass_after = 0;  // shares of those
  std::int64_t groups = 0, signal_before = 0, signal_after = 0, signal_changed = 0;
  std::optional<std::int64_t> signs_changed;  // of advantages; nothing where a critic makes them,
                                              // or maxrl met a negative reward
};

struct EvalRegrade {
  std::int64_t step = 0;
  Interval before, after;  // pass@1
};

// Change of pass@1 from the first evaluation to the last, task by task.
struct GainRegrade {
  std::int64_t first_step = 0, last_step = 0;
  Interval before, after;  // by the old grades, by the new
};

struct RegradeSummary {
  std::int64_t asked = 0;                             // to be graded again
  std::array<std::int64_t, kGradeChanges> changes{};  // of those, by GradeChange
  std::vector<StepRegrade> steps;
  std::vector<EvalRegrade> evaluations;
  std::optional<GainRegrade> gain;
  std::vector<Regraded> most_changed;  // largest change of reward first, then by row

  std::int64_t count(GradeChange change) const { return changes[static_cast<std::size_t>(change)]; }
};

// Pure. `most` bounds most_changed. Rollouts not graded again count with their old verdict, so that
// their groups stay whole.
RegradeSummary summarize_regrade(std::span<const Regraded>, const AdvantageOptions&,
                                 std::size_t most = 20);

// The summary as a JSON object, and for a person.
std::string regrade_json(const RegradeSummary&);
std::string regrade_text(const RegradeSummary&);

}  // namespace rollcall
