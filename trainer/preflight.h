// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "trainer/endpoint_use.h"
#include "trainer/learnability.h"
#include "trainer/run_forecast.h"

namespace rollcall {

// What no task deserves a pass for, as the grader judged it: worthless answers, by their kind, and
// the policy's rollouts of tasks that cannot be solved.
inline constexpr const char* kUnsolvable = "data.canaries";
struct Canary {
  std::string name;  // "empty", "constant", "prompt", "shuffled", kUnsolvable
  std::int64_t graded = 0, passed = 0, faults = 0;

  double share() const {
    return graded > 0 ? static_cast<double>(passed) / static_cast<double>(graded) : 0;
  }
};

// Some transcripts, each graded again several times.
struct RepeatedGrading {
  std::int64_t transcripts = 0, times = 0, faults = 0;
  std::int64_t scores_differ = 0;  // transcripts whose repeated scores are not all the same
  std::int64_t first_differs = 0;  // whose repeated scores are, but not those of the rollout
  double disagreement = 0;         // chance that two gradings of one differ in the verdict
};
struct Regrade {
  double first = 0;            // score that the rollout got
  std::vector<double> scores;  // of the repetitions that were graded
  std::vector<bool> passed;
};
RepeatedGrading compare_gradings(std::span<const Regrade>, std::int64_t times, std::int64_t faults);

// What the run will write, against what there is. Bytes and seconds.
struct DiskNeed {
  double journal = 0, checkpoint = 0, checkpoints = 0, exported = 0, free = 0;
  double bytes_per_second = 0;    // a synced file in run.dir, as tried
  double checkpoint_seconds = 0;  // to write one

  double all() const { return journal + checkpoints + exported; }
};

enum class PreflightVerdict { kGo, kGoWith, kNo };

// How many further rollouts of every task to sample, after `samples` of each: as many again while
// too few tasks had both outcomes to say what the tasks can teach, within `most` rollouts in all.
std::int64_t further_samples(std::span<const TaskOutcome>, std::int64_t tasks, std::int64_t samples,
                             std::int64_t most);

// Everything that `rollcall preflight` finds out.
struct Preflight {
  std::string name, model, dataset;
  std::int64_t planned = 0;  // rollouts sampled
  int rounds = 1;
  double seconds = 0;          // that they took
  int workers = 0;             // that sampled them
  std::int64_t in_flight = 0;  // at most
  PlannedRun run;
  Learnability learnability;
  std::vector<EndpointUse> endpoints;
  std::map<std::string, std::int64_t> left_out;
  std::vector<Canary> canaries;
  RepeatedGrading regrading;
  DiskNeed disk;
  double discard_share = 0;  // alarms.discard_share
  double least_reward = 0;   // of the rollouts, or 0

  double rollouts_per_second() const;  // as planned: scaled by workers
  std::int64_t faults() const;         // rollouts
};

// What follows from it.
struct PreflightJudgement {
  PreflightVerdict verdict = PreflightVerdict::kGo;
  std::vector<std::string> reasons;   // for the verdict
  std::vector<std::string> warnings;  // that do not change it
  Advice advice;
  Forecast as_planned, as_advised;
};
PreflightJudgement judge(const Preflight&);

const char* to_string(PreflightVerdict);  // "go", "go_with", "no"

// preflight.json (docs/preflight.md), the page, and a few lines for a terminal.
std::string preflight_json(const Preflight&, const PreflightJudgement&);
std::string preflight_page(const Preflight&, const PreflightJudgement&);
std::string preflight_text(const Preflight&, const PreflightJudgement&);
std::string count_text(double value);     // "10.2k", "unknown" for no number
std::string duration_text(double hours);  // "42 s", "12 min", "3.5 h"

}  // namespace rollcall
