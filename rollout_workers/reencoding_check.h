// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comms/task.h"
#include "model/chat_format.h"
#include "model/tokenizer.h"

namespace rollcall {

// A server that is sent messages renders and encodes the whole conversation anew at each turn; a
// rollout appends to its tokens. This does as the server would and says where the two differ, which
// is where a deployed policy sees something else than in training. For debugging: each turn costs
// as much as its whole conversation.
class ReencodingCheck {
 public:
  // All of it outlives the check.
  ReencodingCheck(const Task&, const ChatFormat&, const Tokenizer&);
  ~ReencodingCheck();
  ReencodingCheck(const ReencodingCheck&) = delete;
  ReencodingCheck& operator=(const ReencodingCheck&) = delete;

  // A turn of the policy's without its stop token, and what came of its calls.
  void add_turn(std::string_view text, const ParsedTurn&);
  void add_results(std::span<const std::string> outputs);

  // To be called with the tokens that the policy goes on from. Returns what differs, or "".
  std::string compare(std::span<const std::int32_t> tokens);

  // Shares of the turns compared that differed in their text, and in their text or its tokens.
  std::vector<std::pair<std::string, double>> shares() const;

 private:
  const ChatFormat& format_;
  const Tokenizer& tokenizer_;
  struct Conversation;
  std::unique_ptr<Conversation> conversation_;
  int compared_ = 0;
  int other_text_ = 0;
  int other_tokens_ = 0;
};

}  // namespace rollcall
