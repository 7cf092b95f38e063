// SPDX-License-Identifier: Apache-2.0
#include "comms/stop_clock.h"

#include <signal.h>

#include <utility>

namespace rollcall {

StopClock::StopClock(TimeLeft time_left, std::chrono::milliseconds before,
                     std::chrono::milliseconds every)
    : time_left_(std::move(time_left)), before_(before), every_(every) {
  sigset_t all, former;
  sigfillset(&all);
  // Signals are the main thread's: the new one starts with them blocked.
  ::pthread_sigmask(SIG_BLOCK, &all, &former);
  thread_ = std::thread([this] { watch(); });
  ::pthread_sigmask(SIG_SETMASK, &former, nullptr);
}

StopClock::~StopClock() {
  {
    const std::lock_guard lock(mutex_);
    leave_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

bool StopClock::due() const { return Clock::now().time_since_epoch() >= stop_at_.load(); }

void StopClock::watch() {
  std::unique_lock lock(mutex_);
  while (!leave_) {
    lock.unlock();
    const auto asked_at = Clock::now().time_since_epoch();
    if (const auto left = time_left_()) stop_at_ = asked_at + *left - before_;
    lock.lock();
    wake_.wait_for(lock, every_, [this] { return leave_; });
  }
}

}  // namespace rollcall
