// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <set>
#include <string>

namespace rollcall {

// Whether an endpoint may be sent to, from what became of earlier tries. Closed: anybody sends.
// After `failures` of them in a row it opens: nobody sends until a while has passed; then it is
// half open and lets one probe through, whose success closes it and whose failure doubles the wait.
// The caller brings the time and the chance. Single thread.
class CircuitBreaker {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Wait = std::chrono::milliseconds;

  struct Options {
    int failures = 5;
    Wait first_wait{500};
    Wait longest_wait{15000};
  };
  enum class State { kClosed, kOpen, kHalfOpen };

  // The right to send one try. What became of it is news only in the period it was given in; but a
  // late success speaks against suspects.
  struct Pass {
    std::int64_t period = 0;
    bool probe = false;
  };

  struct Failure {
    // Whose try it was, if its request may be to blame. Such failures open it only if they are of
    // kFewestSuspects rollouts, and those of a rollout never that failed before while another
    // succeeded. Empty: nothing of the request was read.
    std::string suspect{};
    Wait asked{0};      // what the endpoint asked for: the next probe is not sent before
    double chance = 1;  // in [0, 1]: the wait is its nominal length or down to half of it
  };

  static constexpr std::size_t kFewestSuspects = 3;

  explicit CircuitBreaker(Options options) : options_(options) {}

  std::optional<Pass> admit(Time now);
  void succeeded(Pass, const std::string& rollout = {});
  void failed(Pass, const Failure&, Time now);
  void abandoned(Pass);  // nothing was learnt: another probe may go at once

  bool current(Pass pass) const { return pass.period == period_; }
  State state() const { return state_; }
  bool open() const { return state_ != State::kClosed; }
  // When admit() will say yes without another's doing: never while a probe is out.
  Time next_admission() const;
  Time opened_at() const { return opened_at_; }        // after the last success; only while open()
  std::int64_t openings() const { return openings_; }  // leaving kClosed, ever

 private:
  void move_to(State);
  void forgive(const std::string& rollout);
  void hold(const Failure&, Time now);

  Options options_;
  State state_ = State::kClosed;
  std::int64_t period_ = 0;
  int in_a_row_ = 0;        // failures
  bool blameless_ = false;  // some of them
  int probes_failed_ = 0;
  std::set<std::string> suspects_;  // of those failures
  std::set<std::string> culprits_;  // suspects who failed while another succeeded
  Time probe_at_{}, opened_at_{};
  std::int64_t openings_ = 0;
};

}  // namespace rollcall
