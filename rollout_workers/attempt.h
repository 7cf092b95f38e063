// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "rollout_workers/environment.h"
#include "rollout_workers/grader.h"
#include "rollout_workers/reencoding_check.h"
#include "rollout_workers/tool_call.h"
#include "rollout_workers/trace.h"
#include "rollout_workers/transcript.h"

namespace rollcall {

// A task as the agent loop needs it.
struct Episode {
  const Task& task;
  std::vector<std::int32_t> prompt;
  std::set<std::string, std::less<>> tools;  // names the row offers
};

// One attempt at a rollout under one trace_id. Single thread; the referenced things outlive it.
class Attempt {
 public:
  Attempt(const Assignment&, const Episode&, const RolloutContext&);

  // Plays and grades; never throws for a fault or a cancellation.
  asio::awaitable<void> run();

  // True if a fault ended it that a new attempt may not meet.
  bool worth_repeating() const;
  // To be called if it is not repeated: where the user asked for it, such a fault becomes reward 0.
  void give_up();
  Trajectory take() { return std::move(trajectory_); }

 private:
  asio::awaitable<void> play();
  asio::awaitable<void> act();
  asio::awaitable<Completion> sample_turn(PolicySession&, std::span<const std::int32_t> delta);
  asio::awaitable<void> make_calls();
  asio::awaitable<void> grade();

  void append_context(std::span<const std::int32_t> tokens);
  void append_turn(const Completion&);
  void read_turn(const Completion&);
  void add_event(std::string name, std::string arguments);
  void check_budgets();
  bool answer_locally(ToolEvent&) const;
  void settle(std::vector<ToolOutcome> outcomes);
  bool append_results(std::vector<std::int32_t>& delta);
  void check_reencoding(std::span<const std::string> outputs);
  bool wants_confirmation(const GradeOutcome&) const;

  void end(EndReason);
  void fail(FaultReason, std::string detail);
  bool over() const;
  std::span<ToolEvent> last_events();
  std::int64_t room() const;

  const Episode& episode_;
  const RolloutContext& context_;
  Environment::Impl& environment_;
  Trace trace_;
  Trajectory trajectory_;
  std::vector<TurnText> turns_;
  std::string turn_problem_;                 // why the last turn's calls could not be read
  std::map<std::string, double> tool_sums_;  // what tool servers reported, by "tool.NAME.METRIC"
  std::optional<ReencodingCheck> check_;     // if it is wanted
  bool misconfigured_ = false;
};

}  // namespace rollcall
