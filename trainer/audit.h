// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comms/trajectory.h"
#include "trainer/run_facts.h"

namespace rollcall {

// What a person who looks for reward hacking wants to know of a training rollout.
struct AuditRollout {
  RolloutFacts facts;
  std::string
      behaviour;  // tool calls, how it ended, shape of the answer: "get+ pay | finished | short"
  std::string answer;          // lower case, blanks made one, at most 200 bytes
  bool without_tools = false;  // answered, and never called a tool
  bool parroted = false;       // the answer is what a tool gave
  double repetition = 0;       // share of the answer's runs of four words that stand in it before
  std::vector<std::string> flags, closed_gates;
  Confirmation confirmation = Confirmation::kNone;
};
AuditRollout audit_rollout(const Trajectory&, RolloutFacts facts);

// Rollouts that went about their tasks in the same way.
struct BehaviourCluster {
  std::string behaviour;
  std::int64_t rollouts = 0, lately = 0;  // in the run; in its last steps
  double reward_mean = 0, pass_rate = 0;
  double share_first = 0, share_last = 0;        // of all rollouts in those steps
  std::map<std::int64_t, double> share_of_step;  // where it is not 0
  std::vector<const AuditRollout*> examples;     // of the last steps: highest rewards, tasks apart
  double growth() const { return share_last - share_first; }
};

// An answer that was given to several tasks.
struct RepeatedAnswer {
  std::string answer;
  std::int64_t rollouts = 0, tasks = 0;
  double pass_rate = 0;
};

// How reward and something else go together: Pearson's correlation, NaN where one does not vary.
struct Correlation {
  double overall = 0;
  double inside_groups = 0;  // of differences from the group's mean: the task's difficulty is out
};

struct Audit {
  std::int64_t steps = 0;
  std::int64_t last_begin = 0;             // the first of the last steps
  std::vector<BehaviourCluster> clusters;  // those of top rewards lately; what grew most is first
  std::vector<const AuditRollout*>
      singletons;                        // the only pass of a group of 8 or more; newest first
  std::vector<RepeatedAnswer> repeated;  // most tasks first
  Correlation length, calls;             // with the reward
  std::map<std::string, std::map<std::int64_t, double>> flags, gates;  // name -> step -> rollouts
};

// Of training rollouts, graded or masked, in journal order, which must outlive the result; what is
// masked counts in flags and gates alone. Pure.
Audit audit_of(std::span<const AuditRollout>);

// Reads the run's journals and writes audit.html beside report.html. Throws Error as
// write_report().
void write_audit(const std::filesystem::path& run_dir);

// The page; reads the transcripts that it shows from the journal. `exploits`: rollouts of canaries
// that passed.
std::string audit_page(const std::string& run_name, std::span<const AuditRollout>, const Audit&,
                       std::span<const RolloutFacts> exploits = {});

}  // namespace rollcall
