// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/stored_grading.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "comms/error.h"
#include "rollout_workers/grader.h"
#include "rollout_workers/grading_pool.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

// The runs of sampled tokens. Between two turns there is always the result of a call.
std::vector<std::span<const std::int32_t>> sampled_turns(const Trajectory& t) {
  std::vector<std::span<const std::int32_t>> turns;
  const std::span<const std::int32_t> tokens(t.tokens);
  for (std::size_t begin = 0; begin < tokens.size();) {
    const auto other = std::find(t.is_action.begin() + static_cast<std::ptrdiff_t>(begin),
                                 t.is_action.end(), t.is_action[begin] == 0 ? 1 : 0);
    const auto end = static_cast<std::size_t>(other - t.is_action.begin());
    if (t.is_action[begin] != 0) turns.push_back(tokens.subspan(begin, end - begin));
    begin = end;
  }
  return turns;
}

std::string text_of(std::span<const std::int32_t> turn, const Tokenizer& tokenizer,
                    const ChatFormat& format) {
  const auto stops = format.stop_ids();
  if (!turn.empty() && std::ranges::find(stops, turn.back()) != stops.end())
    turn = turn.first(turn.size() - 1);
  return tokenizer.decode(turn);
}

// Whether the calls that a turn's text holds are those that are stored; a turn that could not be
// read has one without a name, and one that was cut has none.
bool same_calls(const ParsedTurn& parsed, std::span<const ToolEvent> events) {
  if (events.empty()) return true;
  if (parsed.error) return events.size() == 1 && events.front().name.empty();
  return std::ranges::equal(parsed.calls, events, [](const ToolCall& call, const ToolEvent& event) {
    return call.name == event.name && call.arguments == event.arguments;
  });
}

// Whether the prompt is still what this row makes.
bool same_prompt(const Trajectory& t, const Task& task, const ChatFormat& format) {
  const auto prompt =
      format.render_prompt(ordered_json::parse(task.messages), ordered_json::parse(task.tools));
  return std::ranges::equal(
      prompt, std::span(t.tokens).first(
                  std::min(static_cast<std::size_t>(t.prompt_length), t.tokens.size())));
}

void leave_ungraded(Trajectory& t, std::string why) {
  t.fault = FaultReason::kGraderFault;
  t.fault_detail = std::move(why);
}

}  // namespace

StoredTurns stored_turns(const Trajectory& t, const Tokenizer& tokenizer,
                         const ChatFormat& format) {
  StoredTurns stored;
  std::size_t first = 0;
  for (const auto tokens : sampled_turns(t)) {
    ParsedTurn parsed = format.parse(text_of(tokens, tokenizer, format));
    const auto turn = static_cast<std::int32_t>(stored.turns.size());
    std::size_t end = first;
    while (end < t.tool_events.size() && t.tool_events[end].turn == turn) ++end;
    const auto events = std::span(t.tool_events).subspan(first, end - first);
    if (!same_calls(parsed, events))
      stored.problem = "the calls of turn " + std::to_string(turn) + " are not those of its tokens";
    stored.turns.push_back({std::move(parsed.content), first, end - first});
    first = end;
  }
  const std::string last = stored.turns.empty() ? std::string() : stored.turns.back().content;
  if (static_cast<std::int32_t>(stored.turns.size()) != t.turns || first != t.tool_events.size())
    stored.problem = "the tokens have another number of turns than the rollout";
  else if (last != t.final_text)
    stored.problem = "the stored answer is not that of the tokens";
  if (!stored.problem.empty())
    stored.problem += ": the tokenizer or the chat template is not the run's";
  return stored;
}

struct StoredGrader::Impl {
  explicit Impl(const StoredGradingSetup& setup_in)
      : setup(setup_in), pool(setup.model_dir, setup.chat, setup.grader, setup.job_id) {}

  asio::awaitable<void> grade_one(StoredRollout& rollout) {
    Trajectory& t = rollout.trajectory;
    const bool twice = confirmation_of(t.grade) != Confirmation::kNone;
    t.fault = FaultReason::kNone;
    t.fault_detail.clear();
    const StoredTurns stored = stored_turns(t, pool.tokenizer, *pool.format);
    if (!stored.problem.empty()) {
      leave_ungraded(t, stored.problem);
      co_return;
    }
    if (!same_prompt(t, *rollout.task, *pool.format)) {
      leave_ungraded(t, "its prompt is not what its row of the dataset makes");
      co_return;
    }
    const std::string body = grade_request_body(t, stored.turns, *rollout.task);
    Trace trace(t.assignment, setup.job_id, t.trace_id);
    GradeOutcome outcome = co_await grade_rollout(pool.environment.impl(), trace, body, setup.name);
    if (twice && outcome.fault.empty() && !outcome.masked && outcome.grade.passed)
      co_await confirm_grade(pool.environment.impl(), trace, body, outcome,
                             setup.name + "-confirm");
    settle_grade(setup.rollout, setup.grader, std::move(outcome), t);
  }

  const StoredGradingSetup& setup;
  GradingPool pool;
};

StoredGrader::StoredGrader(const StoredGradingSetup& setup)
    : impl_(std::make_unique<Impl>(setup)) {}

StoredGrader::~StoredGrader() = default;

void StoredGrader::grade(const Next& next, const Done& done) {
  impl_->pool.run([&]() -> asio::awaitable<void> {
    while (auto rollout = next()) {
      co_await impl_->grade_one(*rollout);
      done(std::move(rollout->trajectory));
    }
  });
}

}  // namespace rollcall
