// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>

namespace rollcall {

// Says when a job has to begin to stop, so that it ends in order before its allocation does. Asks
// for the time left again and again, on a thread of its own: limits change, and may take long to
// ask for.
class StopClock {
 public:
  using TimeLeft = std::function<std::optional<std::chrono::seconds>()>;

  // `time_left` is called on the other thread; what it last knew counts where it knows nothing.
  StopClock(TimeLeft time_left, std::chrono::milliseconds before,
            std::chrono::milliseconds every = std::chrono::minutes(1));
  ~StopClock();  // waits for a call of time_left() to return
  StopClock(const StopClock&) = delete;
  StopClock& operator=(const StopClock&) = delete;

  bool due() const;  // never blocks

 private:
  using Clock = std::chrono::steady_clock;

  void watch();

  TimeLeft time_left_;
  std::chrono::milliseconds before_, every_;
  std::atomic<Clock::duration> stop_at_{Clock::duration::max()};  // since the clock's epoch
  std::mutex mutex_;
  std::condition_variable wake_;
  bool leave_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace rollcall
