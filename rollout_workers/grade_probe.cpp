// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/grade_probe.h"

#include <utility>

#include "rollout_workers/grading_pool.h"
#include "rollout_workers/stored_grading.h"
#include "rollout_workers/transcript.h"

namespace rollcall {
namespace {

// Of a rollout that was made up the answer is its one turn.
std::vector<TurnText> turns_of(const Trajectory& t, const Tokenizer& tokenizer,
                               const ChatFormat& format) {
  if (t.tokens.empty()) return {{t.final_text, 0, 0}};
  return stored_turns(t, tokenizer, format).turns;
}

asio::awaitable<GradeOutcome> ask(GradingPool& pool, const std::string& job_id,
                                  const GradeProbe& probe) {
  Trajectory t = probe.trajectory;
  Trace trace =
      probe.repetition > 0 ? Trace(t.assignment, job_id, t.trace_id) : Trace(t.assignment, job_id);
  t.trace_id = trace.id;
  std::string body = grade_request_body(t, turns_of(t, pool.tokenizer, *pool.format), *probe.task);
  std::string purpose = "grade";
  if (probe.repetition > 0) purpose += "-again-" + std::to_string(probe.repetition);
  co_return co_await grade_rollout(pool.environment.impl(), trace, std::move(body),
                                   std::move(purpose));
}

}  // namespace

std::vector<GradeOutcome> grade_probes(const GradeProbeSetup& setup,
                                       std::span<const GradeProbe> probes) {
  GradingPool pool(setup.model_dir, setup.chat, setup.grader, setup.job_id);
  std::vector<GradeOutcome> outcomes(probes.size());
  std::size_t next = 0;
  pool.run([&]() -> asio::awaitable<void> {
    while (next < probes.size()) {
      const std::size_t mine = next++;
      outcomes[mine] = co_await ask(pool, setup.job_id, probes[mine]);
    }
  });
  return outcomes;
}

}  // namespace rollcall
