// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/delivery.h"

#include <algorithm>
#include <optional>

#include "rollout_workers/event.h"
#include "rollout_workers/ids.h"
#include "rollout_workers/url.h"

namespace rollcall {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

std::string describe(const HttpReply& reply, const Redactor& redact) {
  std::string text = "HTTP " + std::to_string(reply.status);
  if (!reply.body.empty()) text += ": " + redact.line(reply.body, 200);
  return text;
}

std::string describe_redirect(const HttpReply& reply, const Redactor& redact) {
  const std::string* location = find_header(reply, "location");
  std::string text = "HTTP " + std::to_string(reply.status) + " redirects";
  if (location != nullptr && location->find("://") != std::string::npos)
    text += " to " + redact.line(split_url(*location).origin(), 200);
  return text +
         "; only 307 and 308 within the same scheme, host and port are followed, three at most: "
         "put the "
         "final address into the run file";
}

// What one request may still cost: retries for faults, and time for waits.
class Patience {
 public:
  Patience(milliseconds timeout, int retries)
      : timeout_(timeout), budget_(retries), retries_(retries) {}

  // At the first send. Later ones may have been kept waiting for what is not the request's doing.
  void begin(Clock::time_point now, Clock::duration kept) {
    if (!deadline_) {
      start_ = now;
      deadline_ = now + timeout_;
    } else {
      *deadline_ += kept;
    }
  }
  // The endpoint was stopped: what it cost before may have been the outage's beginning.
  void refund() { retries_ = budget_; }
  Clock::time_point start() const { return start_; }

  // Whether it may be sent again; a fault that is not `harmless` costs a retry.
  bool bears(Verdict verdict, bool harmless, Clock::time_point now) {
    if (verdict == Verdict::kGiveUp || verdict == Verdict::kConfigure) return false;
    waits_ = verdict == Verdict::kWait && now < *deadline_;
    return harmless || waits_ || retries_-- > 0;
  }

  milliseconds wait(std::optional<milliseconds> asked, RetryDelay& backoff, int tries,
                    Clock::time_point now) const {
    const auto to_deadline = std::chrono::ceil<milliseconds>(*deadline_ - now);
    const milliseconds longest = std::max(to_deadline, backoff.cap());
    const milliseconds drawn =
        asked ? std::min(*asked + backoff.draw(0), longest) : backoff.draw(tries);
    return waits_ ? std::min(drawn, to_deadline) : drawn;
  }

 private:
  milliseconds timeout_;
  int budget_, retries_;
  bool waits_ = false;  // the last reply was a wait, free until the deadline
  Clock::time_point start_{};
  std::optional<Clock::time_point> deadline_;
};

asio::awaitable<std::optional<Endpoint::Turn>> take_turn(
    Endpoint& endpoint, Patience& patience, std::optional<Clock::time_point>& met_stopped) {
  const auto asked = Clock::now();
  const bool met_before = met_stopped.has_value();
  std::optional<Endpoint::Turn> turn(co_await endpoint.turn(met_stopped));
  const auto now = Clock::now();
  patience.begin(now, now - asked);
  if (met_stopped && !met_before) patience.refund();
  co_return turn;
}

}  // namespace

Judgement judge_status(const HttpReply& reply, bool resent, const Redactor& redact) {
  const int status = reply.status;
  if (status == 0) return {Verdict::kRetry, redact.line(reply.error, 300)};
  const bool no_capacity = status == 503 && find_header(reply, "retry-after") != nullptr;
  if (status == 408 || status == 425 || status == 429 || no_capacity || (status == 409 && resent))
    return {Verdict::kWait, describe(reply, redact)};
  if (status == 422 && resent)
    return {Verdict::kConfigure, describe(reply, redact) +
                                     "; said to a retry, it means that the server takes its "
                                     "Idempotency-Key for another request's"};
  if (status >= 500 || status < 200) return {Verdict::kRetry, describe(reply, redact)};
  if (status >= 300 && status < 400) return {Verdict::kConfigure, describe_redirect(reply, redact)};
  return {};
}

TryOutcome outcome_of(const HttpReply& reply, Verdict verdict) {
  if (reply.unsent) return TryOutcome::kUnreachable;
  if (reply.status == 429 || reply.status == 503) return TryOutcome::kBusy;
  const bool answered = verdict != Verdict::kRetry || (reply.status >= 400 && reply.status < 500);
  return answered ? TryOutcome::kAnswered : TryOutcome::kFailed;
}

asio::awaitable<Delivery> deliver(Environment::Impl& environment, Endpoint& endpoint, Trace& trace,
                                  Parcel parcel,
                                  std::function<Judgement(const HttpReply&, bool resent)> judge) {
  HttpRequest request = std::move(parcel.request);
  request.headers.insert(request.headers.end(), trace.headers.begin(), trace.headers.end());
  request.headers.emplace_back("traceparent", make_traceparent(trace.id));
  request.headers.emplace_back("Idempotency-Key", parcel.idempotency_key);
  request.headers.emplace_back("X-Rft-Retry", "0");
  Patience patience(request.timeout, parcel.may_repeat ? parcel.max_retries : 0);
  std::optional<Clock::time_point> met_stopped;
  Delivery delivery;
  for (;; ++delivery.retries) {
    auto turn = co_await take_turn(endpoint, patience, met_stopped);
    if (delivery.retries > 0) endpoint.count_retry();
    request.headers.back().second = std::to_string(delivery.retries);
    request.cookies = trace.cookies.header_for(request.url, std::chrono::system_clock::now());
    HttpRequest copy = request;
    delivery.reply = co_await environment.http.post(std::move(copy));
    trace.cookies.store(request.url, delivery.reply.headers, std::chrono::system_clock::now());
    const auto now = Clock::now();
    delivery.latency_s = std::chrono::duration<double>(now - patience.start()).count();
    Judgement judgement = judge(delivery.reply, delivery.retries > 0);
    const auto asked = retry_after(delivery.reply, std::chrono::system_clock::now());
    const bool stopped = turn->end(outcome_of(delivery.reply, judgement.verdict), parcel.rollout,
                                   asked.value_or(milliseconds(0)), judgement.reason);
    turn.reset();
    if (judgement.verdict == Verdict::kAccept) co_return delivery;
    const bool harmless = delivery.reply.unsent || (stopped && parcel.may_repeat);
    if (!patience.bears(judgement.verdict, harmless, now)) {
      delivery.misconfigured = judgement.verdict == Verdict::kConfigure;
      delivery.fault = std::move(judgement.reason);
      co_return delivery;
    }
    if (stopped) continue;  // its turn is the next probe's, or comes when that was answered
    co_await sleep_for(patience.wait(asked, environment.backoff, delivery.retries, now));
  }
}

}  // namespace rollcall
