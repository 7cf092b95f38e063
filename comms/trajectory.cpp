// SPDX-License-Identifier: Apache-2.0
#include "comms/trajectory.h"

#include <algorithm>

namespace rollcall {

const char* to_string(Split split) {
  switch (split) {
    case Split::kTrain:
      return "train";
    case Split::kValid:
      return "valid";
    case Split::kCanary:
      break;
  }
  return "canary";
}

const char* to_string(EndReason end) {
  switch (end) {
    case EndReason::kNone:
      return "none";
    case EndReason::kFinished:
      return "finished";
    case EndReason::kMaxTurns:
      return "max_turns";
    case EndReason::kMaxToolCalls:
      return "max_tool_calls";
    case EndReason::kMaxNewTokens:
      return "max_new_tokens";
    case EndReason::kContextFull:
      return "context_full";
    case EndReason::kToolDone:
      return "tool_done";
    case EndReason::kUnservedTool:
      return "unserved_tool";
    case EndReason::kInfraExhausted:
      return "infra_exhausted";
  }
  return "unknown";
}

const char* to_string(FaultReason fault) {
  switch (fault) {
    case FaultReason::kNone:
      return "none";
    case FaultReason::kToolFault:
      return "tool_fault";
    case FaultReason::kGraderFault:
      return "grader_fault";
    case FaultReason::kMasked:
      return "masked";
    case FaultReason::kWorkerLost:
      return "worker_lost";
    case FaultReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

bool infrastructure_failed(FaultReason fault) {
  return fault != FaultReason::kNone && fault != FaultReason::kMasked;
}

bool is_limit(EndReason end) {
  return end == EndReason::kMaxTurns || end == EndReason::kMaxToolCalls ||
         end == EndReason::kMaxNewTokens || end == EndReason::kContextFull;
}

void earns_nothing(Grade& grade) {
  grade.reward = std::min(grade.reward, 0.0);
  grade.passed = false;
}

std::optional<double> sub_reward(const Grade& grade, std::string_view name) {
  const auto found =
      std::ranges::find(grade.sub_rewards, name, &std::pair<std::string, double>::first);
  return found == grade.sub_rewards.end() ? std::nullopt : std::optional(found->second);
}

Confirmation confirmation_of(const Grade& grade) {
  if (sub_reward(grade, kConfirmFault)) return Confirmation::kFault;
  if (!sub_reward(grade, kConfirmScore)) return Confirmation::kNone;
  const bool denied = std::ranges::find(grade.flags, kUnconfirmedFlag) != grade.flags.end();
  return denied ? Confirmation::kUnconfirmed : Confirmation::kConfirmed;
}

std::int64_t sampled_tokens(const Trajectory& t) { return std::ranges::count(t.is_action, 1); }

std::int64_t context_tokens(const Trajectory& t) {
  std::int64_t sum = 0;
  for (std::size_t i = 1; i < t.is_action.size(); ++i)
    if (t.is_action[i] == 1 && t.is_action[i - 1] == 0) sum += static_cast<std::int64_t>(i);
  return sum;
}

bool lost_to_infrastructure(const Trajectory& t) {
  return infrastructure_failed(t.fault) || t.end == EndReason::kInfraExhausted;
}

bool has_void_turn(const Trajectory& t) {
  const bool silent = t.end == EndReason::kFinished &&
                      t.final_text.find_first_not_of(" \t\r\n") == std::string::npos;
  return silent || std::ranges::any_of(t.tool_events, &std::string::empty, &ToolEvent::name);
}

}  // namespace rollcall
