// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/delivery.h"

#include <algorithm>

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

// How long to wait before try `retries` + 1, and whether that uses up the budget.
milliseconds wait_before(const HttpReply& reply, RetryDelay& backoff, int retries,
                         milliseconds to_deadline) {
  const auto asked = retry_after(reply, std::chrono::system_clock::now());
  if (!asked) return backoff.draw(retries);
  const milliseconds longest = std::max(to_deadline, backoff.cap());
  return std::min(*asked + backoff.draw(0), longest);
}

}  // namespace

Judgement judge_status(const HttpReply& reply, bool resent, const Redactor& redact) {
  const int status = reply.status;
  if (status == 0) return {Verdict::kRetry, redact.line(reply.error, 300)};
  if (status == 408 || status == 425 || status == 429 || (status == 409 && resent))
    return {Verdict::kWait, describe(reply, redact)};
  if (status == 422 && resent)
    return {Verdict::kConfigure, describe(reply, redact) +
                                     "; said to a retry, it means that the server takes its "
                                     "Idempotency-Key for another request's"};
  if (status >= 500 || status < 200) return {Verdict::kRetry, describe(reply, redact)};
  if (status >= 300 && status < 400) return {Verdict::kConfigure, describe_redirect(reply, redact)};
  return {};
}

std::string named_endpoint(const std::string& name, const std::string& url,
                           const Redactor& redact) {
  const UrlParts parts = split_url(url);  // a query may be private
  return name + " at " + redact.line(parts.origin() + parts.path, 200);
}

asio::awaitable<Delivery> deliver(Environment::Impl& environment, RateLimit& rate, Trace& trace,
                                  Parcel parcel,
                                  std::function<Judgement(const HttpReply&, bool resent)> judge) {
  HttpRequest request = std::move(parcel.request);
  request.headers.insert(request.headers.end(), trace.headers.begin(), trace.headers.end());
  request.headers.emplace_back("traceparent", make_traceparent(trace.id));
  request.headers.emplace_back("Idempotency-Key", parcel.idempotency_key);
  request.headers.emplace_back("X-Rft-Retry", "0");
  co_await rate.turn();
  const auto start = Clock::now();
  const auto deadline = start + request.timeout;
  int budget = parcel.may_repeat ? parcel.max_retries : 0;
  Delivery delivery;
  for (;; ++delivery.retries) {
    request.headers.back().second = std::to_string(delivery.retries);
    request.cookies = trace.cookies.header_for(request.url, std::chrono::system_clock::now());
    HttpRequest copy = request;
    delivery.reply = co_await environment.http.post(std::move(copy));
    trace.cookies.store(request.url, delivery.reply.headers, std::chrono::system_clock::now());
    const auto now = Clock::now();
    delivery.latency_s = std::chrono::duration<double>(now - start).count();
    Judgement judgement = judge(delivery.reply, delivery.retries > 0);
    if (judgement.verdict == Verdict::kAccept) co_return delivery;
    const bool free_wait = judgement.verdict == Verdict::kWait && now < deadline;
    const bool hopeless =
        judgement.verdict == Verdict::kGiveUp || judgement.verdict == Verdict::kConfigure;
    if (hopeless || (!free_wait && budget-- <= 0)) {
      delivery.misconfigured = judgement.verdict == Verdict::kConfigure;
      delivery.fault = std::move(judgement.reason);
      co_return delivery;
    }
    const auto to_deadline = std::chrono::ceil<milliseconds>(deadline - now);
    milliseconds wait =
        wait_before(delivery.reply, environment.backoff, delivery.retries, to_deadline);
    if (free_wait) wait = std::min(wait, to_deadline);
    co_await sleep_for(wait);
    co_await rate.turn();
  }
}

}  // namespace rollcall
