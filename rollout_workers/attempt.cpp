// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/attempt.h"

#include <algorithm>
#include <asio/error.hpp>
#include <chrono>
#include <iterator>
#include <system_error>

#include "comms/fault_injection.h"
#include "comms/log.h"
#include "rollout_workers/event.h"
#include "rollout_workers/ids.h"
#include "rollout_workers/tool_reply.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

Attempt::Attempt(const Assignment& assignment, const Episode& episode,
                 const RolloutContext& context)
    : episode_(episode),
      context_(context),
      environment_(context.environment.impl()),
      trace_(assignment, environment_.job_id) {
  trajectory_.assignment = assignment;
  trajectory_.trace_id = trace_.id;
  if (context.options.check_reencoding)
    check_.emplace(episode.task, context.format, context.tokenizer);
}

asio::awaitable<void> Attempt::run() {
  try {
    co_await play();
  } catch (const std::system_error& error) {
    if (error.code() != asio::error::operation_aborted) throw;
    fail(FaultReason::kCancelled, "the rollout was called off");
  }
}

bool Attempt::worth_repeating() const {
  return trajectory_.fault == FaultReason::kToolFault && !misconfigured_;
}

asio::awaitable<void> Attempt::play() {
  co_await act();
  if (trajectory_.fault == FaultReason::kNone) co_await grade();
}

asio::awaitable<void> Attempt::act() {
  append_context(episode_.prompt);
  trajectory_.prompt_length = static_cast<std::int64_t>(episode_.prompt.size());
  if (room() <= 0) {
    end(EndReason::kContextFull);
    co_return;
  }
  const auto session = context_.policy.open(episode_.prompt, trajectory_.assignment.seed);
  std::vector<std::int32_t> delta;
  while (!over()) {
    const Completion completion = co_await sample_turn(*session, delta);
    append_turn(completion);
    fault_point("turn");
    read_turn(completion);
    if (!over()) check_budgets();
    if (over()) break;
    co_await make_calls();
    if (!over() && !append_results(delta)) end(EndReason::kContextFull);
  }
}

asio::awaitable<Completion> Attempt::sample_turn(PolicySession& session,
                                                 std::span<const std::int32_t> delta) {
  SamplingOptions sampling;
  sampling.max_new_tokens =
      static_cast<std::int32_t>(std::min<std::int64_t>(context_.options.max_new_tokens, room()));
  const auto stops = context_.format.stop_ids();
  sampling.stop_ids.assign(stops.begin(), stops.end());
  sampling.sampled_ids = context_.tokenizer.size();
  const auto start = Clock::now();
  Completion completion = co_await context_.policy.complete(session, delta, sampling);
  trajectory_.generate_time_s += std::chrono::duration<double>(Clock::now() - start).count();
  co_return completion;
}

void Attempt::append_context(std::span<const std::int32_t> tokens) {
  auto& t = trajectory_;
  t.tokens.insert(t.tokens.end(), tokens.begin(), tokens.end());
  t.is_action.resize(t.tokens.size(), 0);
  t.behavior_logprobs.resize(t.tokens.size(), 0.0F);
  t.token_version.resize(t.tokens.size(), -1);
}

void Attempt::append_turn(const Completion& completion) {
  auto& t = trajectory_;
  t.tokens.insert(t.tokens.end(), completion.tokens.begin(), completion.tokens.end());
  t.is_action.resize(t.tokens.size(), 1);
  t.behavior_logprobs.insert(t.behavior_logprobs.end(), completion.logprobs.begin(),
                             completion.logprobs.end());
  t.token_version.insert(t.token_version.end(), completion.versions.begin(),
                         completion.versions.end());
  t.prefill_tokens += completion.prefill_tokens;
}

void Attempt::read_turn(const Completion& completion) {
  std::span<const std::int32_t> text_tokens(completion.tokens);
  if (completion.stop == StopReason::kStopToken && !text_tokens.empty())
    text_tokens = text_tokens.first(text_tokens.size() - 1);
  const std::string text = context_.tokenizer.decode(text_tokens);
  ParsedTurn parsed = context_.format.parse(text);
  if (check_) check_->add_turn(text, parsed);
  trajectory_.final_text = parsed.content;
  turns_.push_back({std::move(parsed.content), trajectory_.tool_events.size(), 0});
  ++trajectory_.turns;
  turn_problem_.clear();
  if (completion.stop == StopReason::kContextFull ||
      (completion.stop == StopReason::kMaxNewTokens && room() <= 0)) {
    end(EndReason::kContextFull);
  } else if (completion.stop == StopReason::kMaxNewTokens) {
    end(EndReason::kMaxNewTokens);
  } else if (parsed.error) {
    turn_problem_ = parsed.error->kind + " at byte " + std::to_string(parsed.error->offset) + ": " +
                    parsed.error->message;
    add_event("", "");
  } else if (parsed.calls.empty()) {
    end(EndReason::kFinished);
  } else {
    for (auto& call : parsed.calls) add_event(std::move(call.name), std::move(call.arguments));
  }
}

void Attempt::add_event(std::string name, std::string arguments) {
  ToolEvent event;
  event.turn = trajectory_.turns - 1;
  event.call_id = "call_" + std::to_string(++trace_.calls);
  event.name = std::move(name);
  event.arguments = std::move(arguments);
  event.span_begin = event.span_end = static_cast<std::int64_t>(trajectory_.tokens.size());
  trajectory_.tool_events.push_back(std::move(event));
  ++turns_.back().events;
}

// Calls beyond a budget are recorded, but not made.
void Attempt::check_budgets() {
  const auto& events = trajectory_.tool_events;
  const auto calls = std::count_if(events.begin(), events.end(),
                                   [](const ToolEvent& event) { return !event.name.empty(); });
  const auto last = last_events();
  const bool unserved = std::any_of(last.begin(), last.end(), [this](const ToolEvent& event) {
    return episode_.tools.contains(event.name) && environment_.find_tool(event.name) == nullptr;
  });
  if (calls > context_.options.max_tool_calls) {
    end(EndReason::kMaxToolCalls);
  } else if (trajectory_.turns >= context_.options.max_turns && !unserved) {
    end(EndReason::kMaxTurns);
  }
}

// True if the call is the agent's mistake; no server hears of it.
bool Attempt::answer_locally(ToolEvent& event) const {
  std::string type, message;
  if (event.name.empty()) {
    type = "invalid_arguments";
    message = turn_problem_;
  } else if (!episode_.tools.contains(event.name)) {
    type = "unknown_tool";
    message = "there is no tool " + event.name;
  } else if (!is_json_object(event.arguments)) {
    type = "invalid_arguments";
    message = "the arguments of " + event.name + " are no JSON object";
  } else {
    return false;
  }
  event.is_error = true;
  event.output = tool_error_text(type, message);
  return true;
}

asio::awaitable<void> Attempt::make_calls() {
  const auto events = last_events();
  std::vector<ToolOutcome> outcomes(events.size());
  std::vector<asio::awaitable<void>> work;
  bool unserved = false;
  for (std::size_t i = 0; i < events.size(); ++i) {
    outcomes[i].event = events[i];
    if (answer_locally(outcomes[i].event)) continue;
    ToolEndpoint* tool = environment_.find_tool(events[i].name);
    unserved = unserved || tool == nullptr;
    if (tool == nullptr) continue;
    work.push_back(call_tool(environment_, *tool, trace_, episode_.task, outcomes[i]));
  }
  co_await run_all(std::move(work));
  settle(std::move(outcomes));
  if (unserved && !over()) end(EndReason::kUnservedTool);
}

void Attempt::settle(std::vector<ToolOutcome> outcomes) {
  const auto events = last_events();
  bool done = false;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    ToolOutcome& outcome = outcomes[i];
    done = done || outcome.done;
    for (const auto& [name, value] : outcome.metrics)
      tool_sums_["tool." + outcome.event.name + "." + name] += value;
    events[i] = std::move(outcome.event);
    if (outcome.fault.empty()) continue;
    misconfigured_ = misconfigured_ || outcome.misconfigured;
    if (trajectory_.fault == FaultReason::kNone)
      fail(FaultReason::kToolFault, std::move(outcome.fault));
  }
  if (done && !over()) end(EndReason::kToolDone);
}

// False, with nothing appended, if the results and at least one answer token do not fit.
bool Attempt::append_results(std::vector<std::int32_t>& delta) {
  const auto events = last_events();
  std::vector<std::string> outputs;
  for (const auto& event : events) outputs.push_back(event.output);
  delta = context_.format.render_tool_results(outputs, false);
  if (room() <= static_cast<std::int64_t>(delta.size())) return false;
  append_context(delta);
  for (auto& event : events) event.span_end = static_cast<std::int64_t>(trajectory_.tokens.size());
  if (check_) check_reencoding(outputs);
  return true;
}

void Attempt::check_reencoding(std::span<const std::string> outputs) {
  check_->add_results(outputs);
  const std::string difference = check_->compare(trajectory_.tokens);
  if (!difference.empty())
    log_info(rollout_id(trajectory_.assignment) + ", after turn " +
             std::to_string(trajectory_.turns) + ": " + difference);
}

asio::awaitable<void> Attempt::grade() {
  const std::string body = grade_request_body(trajectory_, turns_, episode_.task);
  GradeOutcome outcome = co_await grade_rollout(environment_, trace_, body);
  const bool held_out = trajectory_.assignment.split != Split::kTrain;
  if (held_out && environment_.second_endpoint && outcome.fault.empty()) {
    co_await grade_beside(environment_, trace_, body, outcome);
  } else if (wants_confirmation(outcome)) {
    co_await confirm_grade(environment_, trace_, body, outcome);
  }
  fault_point("graded");
  auto& sub_rewards = outcome.grade.sub_rewards;
  sub_rewards.insert(sub_rewards.end(), tool_sums_.begin(), tool_sums_.end());
  if (check_) std::ranges::copy(check_->shares(), std::back_inserter(sub_rewards));
  settle_grade(context_.options, environment_.grader, std::move(outcome), trajectory_);
}

bool Attempt::wants_confirmation(const GradeOutcome& outcome) const {
  const std::string& confirm = environment_.grader.confirm;
  const bool wanted = confirm == "always" || (confirm == "rare" && trajectory_.assignment.rare);
  const bool passes = outcome.fault.empty() && !outcome.masked && outcome.grade.passed;
  return wanted && passes && keeps_grade(context_.options, trajectory_);
}

void Attempt::give_up() {
  if (context_.options.on_infra_exhausted != "zero" || !worth_repeating()) return;
  trajectory_.fault = FaultReason::kNone;  // its detail stays
  end(EndReason::kInfraExhausted);
}

void Attempt::end(EndReason reason) { trajectory_.end = reason; }

void Attempt::fail(FaultReason reason, std::string detail) {
  trajectory_.fault = reason;
  trajectory_.fault_detail = std::move(detail);
}

bool Attempt::over() const {
  return trajectory_.end != EndReason::kNone || trajectory_.fault != FaultReason::kNone;
}

std::span<ToolEvent> Attempt::last_events() {
  return std::span(trajectory_.tool_events)
      .subspan(turns_.back().first_event, turns_.back().events);
}

std::int64_t Attempt::room() const {
  return context_.options.context - static_cast<std::int64_t>(trajectory_.tokens.size());
}

}  // namespace rollcall
