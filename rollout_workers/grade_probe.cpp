// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/grade_probe.h"

#include <algorithm>
#include <asio/co_spawn.hpp>
#include <asio/io_context.hpp>
#include <exception>
#include <utility>

#include "model/tokenizer.h"
#include "rollout_workers/environment.h"
#include "rollout_workers/http_client.h"
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

class Prober {
 public:
  Prober(const GradeProbeSetup& setup, std::span<const GradeProbe> probes)
      : setup_(setup),
        probes_(probes),
        outcomes_(probes.size()),
        tokenizer_(setup.model_dir / "tokenizer.json"),
        format_(make_chat_format(setup.model_dir, tokenizer_, setup.chat)),
        http_(loop_.get_executor()),
        environment_(http_, {}, setup.grader, setup.job_id) {}

  std::vector<GradeOutcome> run() {
    const auto most = static_cast<std::size_t>(setup_.grader.max_concurrency);
    for (std::size_t i = 0; i < std::min(most, probes_.size()); ++i)
      asio::co_spawn(loop_, ask_next(), [this](std::exception_ptr thrown) {
        if (!thrown || failure_) return;
        failure_ = thrown;
        loop_.stop();
      });
    loop_.run();
    if (failure_) std::rethrow_exception(failure_);
    return std::move(outcomes_);
  }

 private:
  asio::awaitable<void> ask_next() {
    while (next_ < probes_.size()) {
      const std::size_t mine = next_++;
      outcomes_[mine] = co_await ask(probes_[mine]);
    }
  }

  asio::awaitable<GradeOutcome> ask(const GradeProbe& probe) {
    Trajectory t = probe.trajectory;
    Trace trace = probe.repetition > 0 ? Trace(t.assignment, setup_.job_id, t.trace_id)
                                       : Trace(t.assignment, setup_.job_id);
    t.trace_id = trace.id;
    std::string body = grade_request_body(t, turns_of(t, tokenizer_, *format_), *probe.task);
    std::string purpose = "grade";
    if (probe.repetition > 0) purpose += "-again-" + std::to_string(probe.repetition);
    co_return co_await grade_rollout(environment_.impl(), trace, std::move(body),
                                     std::move(purpose));
  }

  const GradeProbeSetup& setup_;
  std::span<const GradeProbe> probes_;
  std::vector<GradeOutcome> outcomes_;
  Tokenizer tokenizer_;
  std::unique_ptr<ChatFormat> format_;
  asio::io_context loop_;
  HttpClient http_;
  Environment environment_;
  std::size_t next_ = 0;
  std::exception_ptr failure_;
};

}  // namespace

std::vector<GradeOutcome> grade_probes(const GradeProbeSetup& setup,
                                       std::span<const GradeProbe> probes) {
  return Prober(setup, probes).run();
}

}  // namespace rollcall
