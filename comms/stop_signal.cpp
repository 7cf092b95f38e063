// SPDX-License-Identifier: Apache-2.0
#include "comms/stop_signal.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr std::array kSignals = {SIGTERM, SIGINT, SIGUSR1};
constexpr long long kSameRequestNs = 1'000'000'000;

// A handler can reach nothing but static storage.
std::atomic<int> received{0};
std::atomic<long long> received_at_ns{0};
std::array<struct sigaction, kSignals.size()> former_actions;
static_assert(std::atomic<long long>::is_always_lock_free);

long long now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

extern "C" void rollcall_on_stop_signal(int number) {
  const int saved_errno = errno;
  int none = 0;
  if (received.compare_exchange_strong(none, number)) {
    received_at_ns = now_ns();
  } else if (number != SIGUSR1 && received_at_ns != 0 &&
             now_ns() - received_at_ns > kSameRequestNs) {
    ::_exit(static_cast<int>(ExitCode::kStopped));
  }
  errno = saved_errno;
}

}  // namespace

StopSignal::StopSignal() {
  received = 0;
  received_at_ns = 0;
  struct sigaction action {};
  action.sa_handler = rollcall_on_stop_signal;
  action.sa_flags = SA_RESTART;
  sigfillset(&action.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &action, &former_actions[i]);
  }
}

StopSignal::~StopSignal() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    ::sigaction(kSignals[i], &former_actions[i], nullptr);
  }
}

bool StopSignal::stop_requested() const { return received != 0; }

int StopSignal::signal_number() const { return stop_signal_received(); }

int stop_signal_received() { return received; }

}  // namespace rollcall
