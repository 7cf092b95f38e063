// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>

namespace rollcall {

// How long a peer has been silent, by our own listening. A process that was busy elsewhere has not
// heard what waits in its inbox, so silence counts against the peer only after we listened for two
// heartbeats since its last message; one pause of ours counts as at most one heartbeat of
// listening.
class SilenceClock {
 public:
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::milliseconds;

  SilenceClock(Milliseconds heartbeat_every, Clock::time_point now)
      : heartbeat_every_(heartbeat_every), last_heard_(now), last_listened_(now) {}

  void heard(Clock::time_point now) {
    last_heard_ = now;
    listened_ = {};
  }
  // Once per poll, after everything that had arrived was taken in.
  void listen(Clock::time_point now) {
    listened_ += std::min<Clock::duration>(now - last_listened_, heartbeat_every_);
    last_listened_ = now;
  }
  Milliseconds silence(Clock::time_point now) const {
    return std::chrono::duration_cast<Milliseconds>(now - last_heard_);
  }
  bool silent_for(Milliseconds timeout, Clock::time_point now) const {
    return now - last_heard_ > timeout && listened_ >= 2 * heartbeat_every_;
  }

 private:
  Milliseconds heartbeat_every_;
  Clock::time_point last_heard_;
  Clock::time_point last_listened_;
  Clock::duration listened_{};
};

}  // namespace rollcall
