// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace rollcall {

using HeaderList = std::vector<std::pair<std::string, std::string>>;  // name, value

// Environment variables and their values, which are never shown.
using SecretList = std::vector<std::pair<std::string, std::string>>;

// When a tool call may be sent again after a fault: always (as Azure), keyed (only if the server
// has shown that it honours Idempotency-Key by replaying one), never.
enum class RetryPolicy { kAlways, kKeyed, kNever };

// Waits between tries: uniform in [0, min(cap, base * 2^n)] before the n-th retry (full jitter).
struct BackoffOptions {
  std::chrono::milliseconds base{250};
  std::chrono::milliseconds cap{10000};
};

// One entry of `tools:`.
struct ToolOptions {
  std::string name;
  std::string url;
  HeaderList headers;
  SecretList secrets;  // what ${NAME} in the headers stood for
  std::chrono::milliseconds timeout{600000};
  std::int64_t max_output_bytes = 1 << 20;
  int max_retries = 3;
  int max_concurrency = 256;  // calls of this tool in flight per worker
  double rate_limit = 0;      // requests per second per worker, retries included; 0: no limit
  RetryPolicy retry = RetryPolicy::kAlways;
  std::chrono::milliseconds give_up_after{1800000};  // without a success; then the run ends
  bool send_item = true;  // false keeps references in the row from a tool server
};

// What a grader flag does to the reward.
struct FlagAction {
  std::string flag;
  std::string action;   // zero, penalize, mask, log
  double value = -1.0;  // added to the score by penalize
};

// A part of the grade, by its name in sub_rewards.
struct GradePart {
  std::string name;
  double value = 0;  // of `parts` its weight, of `gates` the least that opens the gate
};

// `grader.second`: an independent grader, as the first. No url: there is none.
struct SecondGraderOptions {
  std::string url;
  HeaderList headers;
  SecretList secrets;
  std::chrono::milliseconds timeout{600000};
  int max_retries = 3;
  int max_concurrency = 256;
  double rate_limit = 0;
  std::chrono::milliseconds give_up_after{1800000};
};

// `grader:`.
struct GraderOptions {
  std::string type = "endpoint";
  std::string url;
  HeaderList headers;
  SecretList secrets;  // as of a tool
  std::chrono::milliseconds timeout{600000};
  int max_retries = 3;
  int max_concurrency = 256;
  double rate_limit = 0;                             // as of a tool
  std::chrono::milliseconds give_up_after{1800000};  // as of a tool
  double gate_value = 0.0;                           // reward when any gate is false
  std::vector<FlagAction> flags{{"hacking", "zero", -1.0}};
  std::vector<GradePart> gates;  // besides those of the reply
  std::vector<GradePart> parts;  // their weighted sum takes the score's place; none: the score
  std::string reward = "score";  // or passed: 1 for a rollout that passes, 0 for any other
  double pass_threshold = 1.0;   // a score that passes, if no gate and no flag speaks against it
  std::string confirm = "rare";  // never, rare, always: which passes are graded a second time
  SecondGraderOptions second;    // by whom; none: by the same grader

  // The least reward of a rollout that passes, before costs.
  double pass_reward() const { return reward == "passed" ? 1.0 : pass_threshold; }
};

// What a passing rollout pays from its reward for what it spends beyond the free part; of each
// budget at most the cap, and nothing where that is 0.
struct ToolBudget {
  int free = 0;  // calls
  double penalty_per_call = 0;
  double cap = 0;
};
struct LatencyBudget {
  std::chrono::milliseconds free{0};  // of waiting for tools
  double penalty_per_second = 0;
  double cap = 0;
};
struct LengthBudget {      // linear from 0 at `free` to the cap at `limit` (DAPO, 2503.14476)
  std::int64_t free = 0;   // sampled tokens of all turns
  std::int64_t limit = 0;  // more than `free`
  double cap = 0;
};

// `rollout:`. Each limit has an EndReason of its own.
struct RolloutOptions {
  int max_turns = 12;
  int max_tool_calls = 15;
  std::int32_t max_new_tokens = 1024;  // per turn
  std::int64_t context = 8192;         // tokens, prompt included
  int max_attempts = 2;                // attempts per rollout when the infrastructure faults
  std::string on_limit = "grade";      // grade, zero, mask or mask_loss
  std::string on_void_turn = "grade";  // likewise, see has_void_turn()
  std::string on_infra_exhausted = "discard";  // or zero: when a tool failed every attempt
  ToolBudget tool_budget;
  LatencyBudget latency_budget;
  LengthBudget length_budget;
  bool check_reencoding = false;  // see ReencodingCheck
};

}  // namespace rollcall
