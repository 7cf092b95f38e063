// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/grader.h"

#include "rollout_workers/delivery.h"
#include "rollout_workers/grade_reply.h"

namespace rollcall {
namespace {

// Any failure is retried, unless the grader says that this cannot help.
Judgement judge_reply(const GraderOptions& options, const HttpReply& reply, bool resent,
                      const Redactor& redact, GradeReply& parsed) {
  Judgement judgement = judge_status(reply, resent, redact);
  if (judgement.verdict != Verdict::kAccept) return judgement;
  if (reply.too_large) return {Verdict::kRetry, "the reply is larger than 1 MiB"};
  if (reply.status >= 300)
    return {Verdict::kRetry,
            "HTTP " + std::to_string(reply.status) + ": " + redact.line(reply.body, 200)};
  parsed = read_grade_reply(reply.body);
  if (const auto missing = missing_part(options, parsed.grade);
      parsed.error.empty() && !parsed.masked && !missing.empty())
    parsed.error = "sub_rewards has no " + missing + ", which grader.parts or grader.gates names";
  if (parsed.error.empty()) return {};
  return {parsed.retryable ? Verdict::kRetry : Verdict::kGiveUp, redact.line(parsed.error, 400)};
}

// The grader's words are stored and shown. Its numbers are not touched.
void redact_words(const Redactor& redact, Grade& grade) {
  grade.explanation = redact(std::move(grade.explanation));
  for (auto& [name, value] : grade.sub_rewards) name = redact(std::move(name));
  for (auto& [name, open] : grade.gates) name = redact(std::move(name));
  for (std::string& flag : grade.flags) flag = redact(std::move(flag));
}

Parcel make_parcel(const GraderOptions& options, const Trace& trace, std::string body,
                   const std::string& purpose) {
  Parcel parcel;
  parcel.request.url = options.url;
  parcel.request.headers = options.headers;
  parcel.request.body = std::move(body);
  parcel.request.timeout = options.timeout;
  parcel.idempotency_key = trace.id + ":" + purpose;
  parcel.rollout = trace.rollout;
  parcel.max_retries = options.max_retries;
  return parcel;
}

}  // namespace

asio::awaitable<GradeOutcome> grade_rollout(Environment::Impl& environment, Trace& trace,
                                            std::string body, std::string purpose) {
  GradeReply parsed;
  Parcel parcel = make_parcel(environment.grader, trace, std::move(body), purpose);
  const Redactor& redact = environment.redact;
  const auto judge = [&](const HttpReply& reply, bool resent) {
    return judge_reply(environment.grader, reply, resent, redact, parsed);
  };
  const Delivery delivery =
      co_await deliver(environment, environment.grader_endpoint, trace, std::move(parcel), judge);
  GradeOutcome outcome;
  if (!delivery.fault.empty()) {
    outcome.fault = environment.grader_endpoint.label() + " after " +
                    std::to_string(delivery.retries) + " retries: " + delivery.fault;
    co_return outcome;
  }
  outcome.grade = std::move(parsed.grade);
  outcome.grade.latency_s = delivery.latency_s;
  outcome.grade.retries = delivery.retries;
  outcome.masked = apply_grade_rules(environment.grader, outcome.grade) || parsed.masked;
  redact_words(redact, outcome.grade);
  co_return outcome;
}

}  // namespace rollcall
