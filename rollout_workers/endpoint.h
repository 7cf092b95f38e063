// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "comms/endpoint_status.h"
#include "rollout_workers/circuit_breaker.h"
#include "rollout_workers/rollout_options.h"
#include "rollout_workers/semaphore.h"

namespace rollcall {

// What a try says about the endpoint that got it.
enum class TryOutcome {
  kAnswered,     // the server does its work, whatever it said
  kBusy,         // it refuses more work for now
  kUnreachable,  // nothing of the request was sent
  kFailed,       // no usable answer, and the request may be why
};

// A tool server or the grader as all rollouts of a worker share it: how many tries are in flight,
// how far apart, and whether it is sent to at all. Single thread.
class Endpoint {
  struct State;

 public:
  struct Options {
    std::string name{}, address{};  // as in EndpointStatus
    int max_concurrency = 256;
    double rate_limit = 0;  // tries per second; 0: no limit
    std::chrono::milliseconds give_up_after{1800000};
    std::chrono::milliseconds longest_ask{600000};  // that a probe waits because it was asked to
    BackoffOptions probes{std::chrono::milliseconds(500), std::chrono::milliseconds(15000)};
  };
  explicit Endpoint(Options);

  // One try's place and permission. May outlive the endpoint, as a Semaphore's permit.
  class Turn {
   public:
    Turn(std::shared_ptr<State>, Semaphore::Permit, CircuitBreaker::Pass);
    Turn(Turn&&) noexcept = default;
    Turn& operator=(Turn&&) = delete;
    ~Turn();  // not told how it ended, it counts as never sent

    // How the try of `rollout` ended; `asked` and `error` are the endpoint's words on a failure.
    // True if that says nothing against the request: sending to the endpoint is stopped, for
    // reasons that others met too.
    bool end(TryOutcome, const std::string& rollout = {}, std::chrono::milliseconds asked = {},
             const std::string& error = {});

   private:
    std::shared_ptr<State> state_;
    Semaphore::Permit place_;
    CircuitBreaker::Pass pass_;
    CircuitBreaker::Time sent_;
    bool ended_ = false;
  };

  // Waits for a turn: as long as it takes while the endpoint is stopped. Cancellable. Throws Error
  // (kNoEndpoint) once it has been stopped for give_up_after while this caller waited for it.
  // `came` is when the caller first met it stopped: kept by the caller between its tries.
  asio::awaitable<Turn> turn(std::optional<CircuitBreaker::Time>& came);

  // Whether new work had better wait: the endpoint is stopped, or refused some and has a queue.
  bool congested() const;
  void count_retry();
  std::string label() const;  // "tool get at http://host:80/path"
  EndpointStatus status() const;

 private:
  std::shared_ptr<State> state_;
};

}  // namespace rollcall
