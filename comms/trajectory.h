// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace rollcall {

// Canaries are tasks that cannot be solved: what passes them exploits the grader.
enum class Split : std::uint8_t { kTrain = 0, kValid = 1, kCanary = 2 };

// One attempt that a worker shall make. Everything random in it follows from `seed`, so any worker
// gives the same tokens for the same assignment and the same server replies.
struct Assignment {
  std::int64_t step = 0;      // optimizer step the rollout is for
  std::int64_t group = 0;     // unique in the run; all members share task_row
  std::int32_t member = 0;    // launch index inside the group, from 0
  std::int32_t attempt = 0;   // 0, then +1 for every re-dispatch after a fault
  std::int64_t task_row = 0;  // row of the split's dataset, from 0
  std::uint64_t seed = 0;
  std::int64_t version = 0;  // policy version to sample with
  Split split = Split::kTrain;
  bool rare = false;  // successes of the task are believed to be rare: see grader.confirm

  friend bool operator==(const Assignment&, const Assignment&) = default;
};

// How the agent's side of a rollout ended. Always graded (protocols: "grade what exists").
enum class EndReason : std::uint8_t {
  kNone = 0,  // no end of its own: the rollout died of a fault
  kFinished,  // the policy answered without a tool call
  kMaxTurns,
  kMaxToolCalls,
  kMaxNewTokens,  // a turn was cut by its token budget
  kContextFull,
  kToolDone,        // a tool replied "done": true
  kUnservedTool,    // a call of a tool that has no endpoint: graded, not executed
  kInfraExhausted,  // its tools failed in every attempt; not graded: reward 0 by the user's wish
};

// What the infrastructure did. Any value but kNone keeps the rollout out of the loss and the
// baseline: a fault is never a reward of 0.
enum class FaultReason : std::uint8_t {
  kNone = 0,
  kToolFault,    // tool endpoint failed after its retries
  kGraderFault,  // grader failed after its retries, or its reply was unusable
  kMasked,       // the grader asked to leave this sample out (mask_sample, or a mask flag)
  kWorkerLost,
  kCancelled,
};

const char* to_string(Split);
const char* to_string(EndReason);
const char* to_string(FaultReason);

// Whether it was the infrastructure that left the rollout without a grade. A mask is a grade.
bool infrastructure_failed(FaultReason);
// Whether a limit of `rollout:` cut the agent short.
bool is_limit(EndReason);

// One tool call as the agent made it, and what came back. Parallel calls of one turn keep call
// order.
struct ToolEvent {
  std::int32_t turn = 0;  // model turn that made the call, from 0
  std::string call_id;    // "call_..."
  std::string name;
  std::string arguments;    // JSON text as sent
  std::string output;       // as shown to the model
  std::int32_t status = 0;  // last HTTP status; 0 if no request was made
  bool is_error = false;    // the model was shown an error
  double latency_s = 0;     // from first send to the accepted reply, retries included
  std::int32_t retries = 0;
  std::int64_t span_begin = 0;  // token span of the turn's tool output in Trajectory::tokens
  std::int64_t span_end = 0;
};

// What a second grading leaves: a flag if it did not pass, and sub-rewards, its score or that it
// had a fault.
inline constexpr const char* kUnconfirmedFlag = "unconfirmed";
inline constexpr const char* kConfirmScore = "confirm.score";
inline constexpr const char* kConfirmFault = "confirm.fault";
// Of a held-out rollout, where there is a second grader: whether it would pass it, 1 or 0.
inline constexpr const char* kSecondPassed = "second.passed";
inline constexpr const char* kSecondScore = "second.score";

struct Grade {
  double score = 0;     // what the grader said
  double reward = 0;    // what training uses, after gates, flags, shapes
  bool passed = false;  // what pass@1 counts, after gates and flags
  std::vector<std::pair<std::string, double>> sub_rewards;
  std::vector<std::pair<std::string, bool>> gates;
  std::vector<std::string> flags;
  std::string explanation;
  double latency_s = 0;
  std::int32_t retries = 0;
};

// Not a pass, and a reward of 0 at most: a rule that takes a reward away never gives one.
void earns_nothing(Grade&);

// The first of that name; none if the grade has none.
std::optional<double> sub_reward(const Grade&, std::string_view name);

// A rollout's record; journalled as is. The four arrays have one entry per token, T in all.
struct Trajectory {
  Assignment assignment;
  std::string trace_id;                     // "trace_" + UUID, new for each attempt
  std::vector<std::int32_t> tokens;         // prompt, model and tool tokens, in order
  std::vector<std::uint8_t> is_action;      // 1 where the policy sampled the token
  std::vector<float> behavior_logprobs;     // nats; 0 where is_action is 0
  std::vector<std::int32_t> token_version;  // policy version that sampled the token; -1 elsewhere
  std::int64_t prompt_length = 0;           // tokens before the first sampled one
  std::int32_t turns = 0;                   // model turns
  std::int64_t prefill_tokens = 0;          // prompt and tool tokens that the engine computed
  std::vector<ToolEvent> tool_events;
  Grade grade;
  EndReason end = EndReason::kNone;
  FaultReason fault = FaultReason::kNone;
  std::string fault_detail;    // one line for a person; no secrets
  std::string final_text;      // content of the last model turn
  double wall_time_s = 0;      // assignment taken to grade received
  double generate_time_s = 0;  // part of it spent waiting for the engine
  std::int32_t worker = -1;    // rank that made it
};

enum class Confirmation : std::uint8_t { kNone, kConfirmed, kUnconfirmed, kFault };
Confirmation confirmation_of(const Grade&);

// Tokens that the policy sampled.
std::int64_t sampled_tokens(const Trajectory&);
// Tokens before each model turn, summed over the turns: what an engine without a cache computes.
std::int64_t context_tokens(const Trajectory&);

// Whether the infrastructure decided how the rollout ended: a fault, or one turned into reward 0.
bool lost_to_infrastructure(const Trajectory&);

// Whether a turn neither acted nor answered: a call that could not be read, or an empty final
// answer (SimpleTIR, 2509.02479).
bool has_void_turn(const Trajectory&);

}  // namespace rollcall
