// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/lead_policy.h"

#include <utility>
#include <vector>

namespace rollcall {

// Opened on the other side by its first turn.
class LeadPolicy::Session : public PolicySession {
 public:
  Session(RolloutClient& client, std::int64_t number, std::span<const std::int32_t> prompt,
          std::uint64_t seed)
      : client_(client), number_(number), seed_(seed), prompt_(prompt.begin(), prompt.end()) {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session() override {
    if (prompt_.empty()) client_.close_session(number_);
  }

  std::int64_t number() const { return number_; }
  TurnRequest request(std::span<const std::int32_t> delta, const SamplingOptions& options) {
    return {number_, seed_, std::exchange(prompt_, {}), {delta.begin(), delta.end()}, options};
  }

 private:
  RolloutClient& client_;
  std::int64_t number_;
  std::uint64_t seed_;
  std::vector<std::int32_t> prompt_;  // until it was sent
};

std::unique_ptr<PolicySession> LeadPolicy::open(std::span<const std::int32_t> prompt,
                                                std::uint64_t seed) {
  return std::make_unique<Session>(client_, sessions_++, prompt, seed);
}

asio::awaitable<Completion> LeadPolicy::complete(PolicySession& session,
                                                 std::span<const std::int32_t> delta,
                                                 const SamplingOptions& options) {
  auto& own = dynamic_cast<Session&>(session);
  client_.request(own.request(delta, options));
  co_return co_await waiters_.wait(own.number());
}

void LeadPolicy::take(TurnReply reply) {
  waiters_.finish(reply.session, std::move(reply.completion));
}

}  // namespace rollcall
