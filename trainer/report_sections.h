// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "trainer/chart.h"
#include "trainer/run_facts.h"

namespace rollcall {

// Parts of the report as HTML; "" where the run has nothing for them. Pure but for
// transcripts_section(), which reads the chosen rollouts from the journal.
std::string header_section(const RunFacts&, const std::vector<EvalFacts>&);
std::string notices_section(const RunFacts&, const std::vector<StepFacts>&);
std::string learning_section(const RunFacts&, const std::vector<StepFacts>&,
                             const std::vector<EvalFacts>&);
std::string tools_section(const RunFacts&, const std::vector<StepFacts>&);
std::string speed_section(const RunFacts&, const std::vector<StepFacts>&);
std::string faults_section(const RunFacts&);
std::string agreement_section(const RunFacts&);
std::string transcripts_section(const RunFacts&, const std::vector<EvalFacts>&);

// One rollout for a reader, from the journal: what the grader made of it, its calls, its answer.
std::string transcript_card(const RolloutFacts&, const std::string& title);

// "Before" and "after" of training rollouts: the first and the last tenth of the steps, one at
// least.
struct Tenths {
  std::int64_t first_end = 0;   // steps < first_end are before
  std::int64_t last_begin = 0;  // steps >= last_begin are after
};
Tenths tenths_of(const std::vector<StepFacts>&);

// The series of one metric, in line order.
std::vector<ChartPoint> points_of(const RunFacts&, const std::string& metric);

}  // namespace rollcall
