// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/grader.h"

#include "rollout_workers/delivery.h"
#include "rollout_workers/grade_reply.h"
#include "rollout_workers/utf8.h"

namespace rollcall {
namespace {

// Any failure is retried, unless the grader says that this cannot help.
Judgement judge_reply(const HttpReply& reply, bool resent, GradeReply& parsed) {
  Judgement judgement = judge_status(reply, resent);
  if (judgement.verdict != Verdict::kAccept) return judgement;
  if (reply.too_large) return {Verdict::kRetry, "the reply is larger than 1 MiB"};
  if (reply.status >= 300)
    return {Verdict::kRetry,
            "HTTP " + std::to_string(reply.status) + ": " + one_line(reply.body, 200)};
  parsed = read_grade_reply(reply.body);
  if (parsed.error.empty()) return {};
  return {parsed.retryable ? Verdict::kRetry : Verdict::kGiveUp, parsed.error};
}

Parcel make_parcel(const GraderOptions& options, const Trace& trace, std::string body) {
  Parcel parcel;
  parcel.request.url = options.url;
  parcel.request.headers = options.headers;
  parcel.request.body = std::move(body);
  parcel.request.timeout = options.timeout;
  parcel.idempotency_key = trace.id + ":grade";
  parcel.max_retries = options.max_retries;
  return parcel;
}

}  // namespace

asio::awaitable<GradeOutcome> grade_rollout(Environment::Impl& environment, Trace& trace,
                                            std::string body) {
  const Semaphore::Permit place = co_await environment.grader_places.acquire();
  GradeReply parsed;
  Parcel parcel = make_parcel(environment.grader, trace, std::move(body));
  const auto judge = [&parsed](const HttpReply& reply, bool resent) {
    return judge_reply(reply, resent, parsed);
  };
  const Delivery delivery = co_await deliver(environment, trace, std::move(parcel), judge);
  GradeOutcome outcome;
  if (!delivery.fault.empty()) {
    outcome.fault =
        "grader after " + std::to_string(delivery.retries) + " retries: " + delivery.fault;
    co_return outcome;
  }
  outcome.grade = std::move(parsed.grade);
  outcome.grade.explanation = environment.redact(std::move(outcome.grade.explanation));
  outcome.grade.latency_s = delivery.latency_s;
  outcome.grade.retries = delivery.retries;
  outcome.masked = apply_grade_rules(environment.grader, outcome.grade) || parsed.masked;
  co_return outcome;
}

}  // namespace rollcall
