// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace rollcall {

struct SamplingOptions {
  std::int32_t max_new_tokens = 512;
  std::vector<std::int32_t> stop_ids;
  std::int32_t sampled_ids = 0;  // ids from here on are padding: never sampled, out of the softmax
};

enum class StopReason : std::uint8_t { kStopToken, kMaxNewTokens, kContextFull };

// One model turn, as sampled.
struct Completion {
  std::vector<std::int32_t> tokens;    // the stop token included
  std::vector<float> logprobs;         // nats, of the distribution sampled from (T = 1)
  std::vector<std::int32_t> versions;  // policy version per token
  std::int64_t prefill_tokens = 0;     // of the context before it, computed for this turn
  StopReason stop = StopReason::kStopToken;
};

// A turn that a worker wants sampled (policy.placement: learners).
struct TurnRequest {
  std::int64_t session = 0;            // the worker's number of the sequence
  std::uint64_t seed = 0;              // of the sequence
  std::vector<std::int32_t> prompt{};  // opens the session; empty: it is open
  std::vector<std::int32_t> delta{};   // tokens since the last turn, after the prompt
  SamplingOptions options{};
};

struct TurnReply {
  std::int64_t session = 0;
  Completion completion{};
};

}  // namespace rollcall
