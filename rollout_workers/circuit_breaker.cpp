// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/circuit_breaker.h"

#include <algorithm>

namespace rollcall {
namespace {

constexpr int kMostDoublings = 20;
constexpr std::size_t kMostCulprits = 4096;

}  // namespace

void CircuitBreaker::move_to(State state) {
  state_ = state;
  ++period_;
  if (state == State::kClosed) probes_failed_ = 0;
}

// Who failed shortly before an answer to another has only itself to blame.
void CircuitBreaker::forgive(const std::string& rollout) {
  suspects_.erase(rollout);
  if (culprits_.size() > kMostCulprits) culprits_.clear();  // most have long ended
  culprits_.merge(suspects_);
  suspects_.clear();
  in_a_row_ = 0;
  blameless_ = false;
}

void CircuitBreaker::hold(const Failure& failure, Time now) {
  move_to(State::kOpen);
  const Wait nominal = std::min(
      options_.longest_wait, options_.first_wait * (1 << std::min(probes_failed_, kMostDoublings)));
  const auto own = std::chrono::duration_cast<Wait>(nominal * (0.5 + 0.5 * failure.chance));
  probe_at_ = now + std::max(own, failure.asked);
}

std::optional<CircuitBreaker::Pass> CircuitBreaker::admit(Time now) {
  if (state_ == State::kClosed) return Pass{period_, false};
  if (state_ == State::kHalfOpen || now < probe_at_) return std::nullopt;
  move_to(State::kHalfOpen);
  return Pass{period_, true};
}

void CircuitBreaker::succeeded(Pass pass, const std::string& rollout) {
  // Sent with those that opened it: so it was they, and no outage.
  const bool acquits = open() && !blameless_ && !pass.probe;
  if (!current(pass) && !acquits) return;
  if (state_ == State::kHalfOpen && pass.probe) suspects_.clear();  // an outage was to blame
  if (open()) move_to(State::kClosed);
  forgive(rollout);
}

void CircuitBreaker::failed(Pass pass, const Failure& failure, Time now) {
  if (!current(pass)) return;
  if (state_ == State::kHalfOpen) {
    ++probes_failed_;
    return hold(failure, now);
  }
  if (culprits_.contains(failure.suspect)) return;
  if (failure.suspect.empty()) blameless_ = true;
  if (!failure.suspect.empty()) suspects_.insert(failure.suspect);
  if (++in_a_row_ < options_.failures) return;
  if (!blameless_ && suspects_.size() < kFewestSuspects) return;
  opened_at_ = now;
  ++openings_;
  hold(failure, now);
}

void CircuitBreaker::abandoned(Pass pass) {
  if (current(pass) && state_ == State::kHalfOpen) move_to(State::kOpen);
}

CircuitBreaker::Time CircuitBreaker::next_admission() const {
  if (state_ == State::kClosed) return Time::min();
  return state_ == State::kHalfOpen ? Time::max() : probe_at_;
}

}  // namespace rollcall
