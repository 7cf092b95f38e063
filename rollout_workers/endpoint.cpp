// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/endpoint.h"

#include <algorithm>
#include <asio/error.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>
#include <list>
#include <random>
#include <system_error>
#include <utility>

#include "comms/error.h"
#include "comms/log.h"
#include "rollout_workers/rate_limit.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

CircuitBreaker::Options breaker_options(const BackoffOptions& probes) {
  return {.failures = 5, .first_wait = probes.base, .longest_wait = probes.cap};
}

}  // namespace

struct Endpoint::State {
  explicit State(Options options_in)
      : options(std::move(options_in)),
        limit(options.max_concurrency),
        places(options.max_concurrency),
        rate(options.rate_limit),
        breaker(breaker_options(options.probes)),
        random(std::random_device{}()) {}

  struct Held;

  asio::awaitable<void> hold(Clock::time_point came);
  void record(TryOutcome, const std::string& rollout, CircuitBreaker::Pass,
              const CircuitBreaker::Failure&);
  void adapt(TryOutcome, Clock::time_point sent);
  void wake_all();
  void note_change(bool was_open) const;
  [[noreturn]] void give_up(Clock::time_point since) const;

  Options options;
  int limit;  // tries in flight, at most
  Semaphore places;
  RateLimit rate;
  CircuitBreaker breaker;
  std::minstd_rand random;
  std::string error;
  std::list<Held*> held;
  Clock::time_point held_since{};
  Clock::duration waited{0};
  Clock::time_point last_cut{};
  std::int64_t retries = 0;
};

// One caller that is held back. Wakes at a time or when something changed.
struct Endpoint::State::Held {
  Held(State& state, const asio::any_io_executor& executor, Clock::time_point until)
      : of(state), timer(executor, until) {
    if (of.held.empty()) of.held_since = Clock::now();
    of.held.push_back(this);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() {
    of.held.remove(this);
    if (of.held.empty()) of.waited += Clock::now() - of.held_since;
  }

  State& of;
  asio::steady_timer timer;
  bool woken = false;
};

// Until a probe may be sent, or it is known what became of the one that is out.
asio::awaitable<void> Endpoint::State::hold(Clock::time_point came) {
  const auto since = std::max(came, breaker.opened_at());
  const auto end = since + options.give_up_after;
  if (Clock::now() >= end) give_up(since);
  Held self(*this, co_await asio::this_coro::executor, std::min(end, breaker.next_admission()));
  std::error_code cancelled;
  co_await self.timer.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  if (cancelled && !self.woken)
    throw std::system_error(asio::error::make_error_code(asio::error::operation_aborted));
}

void Endpoint::State::record(TryOutcome outcome, const std::string& rollout,
                             CircuitBreaker::Pass pass, const CircuitBreaker::Failure& failure) {
  const bool was_open = breaker.open();
  if (outcome == TryOutcome::kAnswered) {
    breaker.succeeded(pass, rollout);
  } else {
    breaker.failed(pass, failure, Clock::now());
  }
  note_change(was_open);
  if (pass.probe || breaker.open() != was_open) wake_all();
}

// A refusal leaves half of what is in flight as the limit, an answer adds one. What was sent before
// the last cut was sent under another limit and cuts no further.
void Endpoint::State::adapt(TryOutcome outcome, Clock::time_point sent) {
  if (outcome == TryOutcome::kAnswered && limit < options.max_concurrency) {
    places.resize(++limit);
  } else if (outcome == TryOutcome::kBusy && sent >= last_cut) {
    limit = std::max(1, std::min(limit, places.taken()) / 2);
    places.resize(limit);
    last_cut = Clock::now();
  }
}

void Endpoint::State::wake_all() {
  for (Held* one : held) {
    one->woken = true;
    one->timer.cancel();
  }
}

void Endpoint::State::note_change(bool was_open) const {
  if (breaker.open() == was_open) return;
  const std::string who = options.name + " at " + options.address;
  if (was_open) {
    log_info(who + " answers again");
  } else {
    log_warning("calls are held back: " + who + " fails: " + error);
  }
}

void Endpoint::State::give_up(Clock::time_point since) const {
  const auto down = std::chrono::round<std::chrono::seconds>(Clock::now() - since);
  throw Error(options.name + " at " + options.address + " has failed for " +
                  std::to_string(down.count()) + " s without a success; the last error: " + error,
              "see that it runs and that the workers reach it, then start again: a training run "
              "resumes",
              ExitCode::kNoEndpoint);
}

Endpoint::Endpoint(Options options) : state_(std::make_shared<State>(std::move(options))) {}

asio::awaitable<Endpoint::Turn> Endpoint::turn(std::optional<CircuitBreaker::Time>& came) {
  const auto state = state_;
  for (;;) {
    {
      Semaphore::Permit place = co_await state->places.acquire();
      if (const auto pass = state->breaker.admit(Clock::now())) {
        Turn turn(state, std::move(place), *pass);
        co_await state->rate.turn();
        if (state->breaker.current(*pass)) co_return turn;
      }
    }
    if (!came) came = Clock::now();
    if (state->breaker.open()) co_await state->hold(*came);
  }
}

bool Endpoint::congested() const {
  return state_->breaker.open() ||
         (state_->limit < state_->options.max_concurrency && state_->places.waiting() > 0);
}

std::string Endpoint::label() const {
  return state_->options.name + " at " + state_->options.address;
}

void Endpoint::count_retry() { ++state_->retries; }

EndpointStatus Endpoint::status() const {
  const State& s = *state_;
  const auto now = Clock::now();
  EndpointStatus status;
  status.name = s.options.name;
  status.address = s.options.address;
  status.waiting = s.breaker.open();
  status.held = static_cast<std::int32_t>(s.held.size());
  if (status.waiting) status.down_s = seconds(now - s.breaker.opened_at());
  status.error = s.error;
  status.waited_s = seconds(s.waited + (s.held.empty() ? Clock::duration(0) : now - s.held_since));
  status.openings = s.breaker.openings();
  status.retries = s.retries;
  return status;
}

Endpoint::Turn::Turn(std::shared_ptr<State> state, Semaphore::Permit place,
                     CircuitBreaker::Pass pass)
    : state_(std::move(state)), place_(std::move(place)), pass_(pass), sent_(Clock::now()) {}

Endpoint::Turn::~Turn() {
  if (state_ == nullptr || ended_) return;
  state_->breaker.abandoned(pass_);
  if (pass_.probe) state_->wake_all();
}

bool Endpoint::Turn::end(TryOutcome outcome, const std::string& rollout,
                         std::chrono::milliseconds asked, const std::string& error) {
  ended_ = true;
  State& s = *state_;
  if (outcome != TryOutcome::kAnswered) s.error = error;
  const bool blameless = outcome == TryOutcome::kUnreachable || outcome == TryOutcome::kBusy;
  s.adapt(outcome, sent_);
  s.record(outcome, rollout, pass_,
           {.suspect = blameless ? std::string() : rollout,
            .asked = std::min(asked, std::max(s.options.longest_ask, s.options.probes.cap)),
            .chance = std::uniform_real_distribution<>()(s.random)});
  return s.breaker.open() && (blameless || !pass_.probe);
}

}  // namespace rollcall
