// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/grader.h"

#include "comms/log.h"
#include "rollout_workers/delivery.h"
#include "rollout_workers/grade_reply.h"
#include "rollout_workers/reward_shape.h"
#include "rollout_workers/transcript.h"

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

template <class Options>
Parcel make_parcel(const Options& options, const Trace& trace, std::string body,
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

// `rules`: what makes a grade of the reply.
asio::awaitable<GradeOutcome> ask(Environment::Impl& environment, Endpoint& endpoint,
                                  const GraderOptions& rules, Trace& trace, Parcel parcel) {
  GradeReply parsed;
  const Redactor& redact = environment.redact;
  const auto judge = [&](const HttpReply& reply, bool resent) {
    return judge_reply(rules, reply, resent, redact, parsed);
  };
  const Delivery delivery =
      co_await deliver(environment, endpoint, trace, std::move(parcel), judge);
  GradeOutcome outcome;
  if (!delivery.fault.empty()) {
    outcome.fault = endpoint.label() + " after " + std::to_string(delivery.retries) +
                    " retries: " + delivery.fault;
    co_return outcome;
  }
  outcome.grade = std::move(parsed.grade);
  outcome.grade.latency_s = delivery.latency_s;
  outcome.grade.retries = delivery.retries;
  outcome.masked = apply_grade_rules(rules, outcome.grade) || parsed.masked;
  redact_words(redact, outcome.grade);
  co_return outcome;
}

// By grader.second. Parts and gates by name are the first grader's.
asio::awaitable<GradeOutcome> ask_second(Environment::Impl& environment, Trace& trace,
                                         std::string body, std::string purpose) {
  GraderOptions rules = environment.grader;
  rules.gates.clear();
  rules.parts.clear();
  Parcel parcel = make_parcel(environment.grader.second, trace, std::move(body), purpose);
  co_return co_await ask(environment, *environment.second_endpoint, rules, trace,
                         std::move(parcel));
}

}  // namespace

asio::awaitable<GradeOutcome> grade_rollout(Environment::Impl& environment, Trace& trace,
                                            std::string body, std::string purpose) {
  Parcel parcel = make_parcel(environment.grader, trace, std::move(body), purpose);
  co_return co_await ask(environment, environment.grader_endpoint, environment.grader, trace,
                         std::move(parcel));
}

asio::awaitable<void> confirm_grade(Environment::Impl& environment, Trace& trace, std::string body,
                                    GradeOutcome& outcome, std::string purpose) {
  GradeOutcome second;
  if (environment.second_endpoint)  // no ?: here, whose temporaries g++ 12 destroys twice
    second = co_await ask_second(environment, trace, std::move(body), std::move(purpose));
  else
    second = co_await grade_rollout(environment, trace, std::move(body), std::move(purpose));
  Grade& grade = outcome.grade;
  if (!second.fault.empty()) {
    grade.sub_rewards.emplace_back(kConfirmFault, 1);
    log_debug(trace.rollout + " (" + trace.id +
              "): its pass was not graded again: " + second.fault);
    co_return;
  }
  grade.sub_rewards.emplace_back(kConfirmScore, second.grade.score);
  if (second.grade.passed && !second.masked) co_return;
  grade.flags.emplace_back(kUnconfirmedFlag);
  outcome.masked = apply_grade_rules(environment.grader, grade);
}

asio::awaitable<void> grade_beside(Environment::Impl& environment, Trace& trace, std::string body,
                                   GradeOutcome& outcome) {
  const GradeOutcome second = co_await ask_second(environment, trace, std::move(body), "second");
  if (!second.fault.empty()) {
    log_debug(trace.rollout + " (" + trace.id + "): no second grade: " + second.fault);
    co_return;
  }
  const bool passed = second.grade.passed && !second.masked;
  outcome.grade.sub_rewards.emplace_back(kSecondScore, second.grade.score);
  outcome.grade.sub_rewards.emplace_back(kSecondPassed, passed ? 1 : 0);
}

bool keeps_grade(const RolloutOptions& options, const Trajectory& t) {
  const auto kept = [](const std::string& rule) { return rule == "grade" || rule == "mask_loss"; };
  return (!is_limit(t.end) || kept(options.on_limit)) &&
         (!has_void_turn(t) || kept(options.on_void_turn));
}

void settle_grade(const RolloutOptions& options, const GraderOptions& grader, GradeOutcome outcome,
                  Trajectory& t) {
  const auto leave_out = [&](FaultReason reason, std::string detail) {
    t.fault = reason;
    t.fault_detail = std::move(detail);
  };
  if (!outcome.fault.empty()) return leave_out(FaultReason::kGraderFault, std::move(outcome.fault));
  t.grade = std::move(outcome.grade);
  const auto apply = [&](bool met, const std::string& rule, const char* name) {
    if (met && rule == "zero") earns_nothing(t.grade);
    if (met && rule == "mask")
      leave_out(FaultReason::kMasked, std::string(name) + " masks " + to_string(t.end));
  };
  apply(is_limit(t.end), options.on_limit, "on_limit");
  apply(has_void_turn(t), options.on_void_turn, "on_void_turn");
  apply_budgets(options, spent(t), grader.pass_reward(), t.grade);
  if (!outcome.masked) return;
  const bool denied = confirmation_of(t.grade) == Confirmation::kUnconfirmed;
  leave_out(FaultReason::kMasked, denied ? "a second grading did not confirm that it passed"
                                         : "the grader masked the sample");
}

}  // namespace rollcall
