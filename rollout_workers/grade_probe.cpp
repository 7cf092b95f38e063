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
#include "rollout_workers/transcript.h"

namespace rollcall {
namespace {

std::string content_of(std::span<const std::int32_t> turn, const Tokenizer& tokenizer,
                       const ChatFormat& format) {
  const auto stops = format.stop_ids();
  if (!turn.empty() && std::ranges::find(stops, turn.back()) != stops.end())
    turn = turn.first(turn.size() - 1);
  return format.parse(tokenizer.decode(turn)).content;
}

// A run of sampled tokens is a turn; between two there is always the result of a call.
std::vector<TurnText> turns_of(const Trajectory& t, const Tokenizer& tokenizer,
                               const ChatFormat& format) {
  std::vector<TurnText> turns;
  const std::span<const std::int32_t> tokens(t.tokens);
  std::size_t event = 0;
  for (std::size_t begin = 0; begin < tokens.size();) {
    const bool sampled = t.is_action[begin] != 0;
    std::size_t end = begin;
    while (end < tokens.size() && (t.is_action[end] != 0) == sampled) ++end;
    if (sampled) {
      TurnText turn{content_of(tokens.subspan(begin, end - begin), tokenizer, format), event, 0};
      while (event < t.tool_events.size() &&
             t.tool_events[event].turn == static_cast<std::int32_t>(turns.size()))
        ++event;
      turn.events = event - turn.first_event;
      turns.push_back(std::move(turn));
    }
    begin = end;
  }
  if (t.tokens.empty() && !t.final_text.empty()) turns.push_back({t.final_text, 0, 0});
  return turns;
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
