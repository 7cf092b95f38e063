// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <asio/awaitable.hpp>
#include <functional>
#include <string>
#include <utility>

#include "rollout_workers/endpoint.h"
#include "rollout_workers/environment.h"
#include "rollout_workers/http_client.h"
#include "rollout_workers/redact.h"
#include "rollout_workers/trace.h"

namespace rollcall {

// What a reply means for the request that it answers.
enum class Verdict {
  kAccept,
  kRetry,      // a server's fault: uses up the retry budget
  kWait,       // the server is busy: before the deadline it costs nothing but time
  kGiveUp,     // sending it again cannot help
  kConfigure,  // nor can a new attempt: the run's configuration is wrong
};

struct Judgement {
  Verdict verdict = Verdict::kAccept;
  std::string reason;  // one line without secrets, of anything but kAccept
};

// The verdict that the transport and the HTTP status alone give. `resent`: an earlier try may still
// run.
Judgement judge_status(const HttpReply&, bool resent, const Redactor&);

// What a try that was judged so says about its endpoint.
TryOutcome outcome_of(const HttpReply&, Verdict);

struct Parcel {
  HttpRequest request;  // without the trace's headers and cookies
  std::string idempotency_key;
  std::string rollout;  // whose request it is
  int max_retries = 3;
  bool may_repeat = true;  // false: a fault is final (waits are still served)
};

struct Delivery {
  HttpReply reply;             // the last one, as the server sent it: it may hold secrets
  std::string fault;           // empty if it was accepted
  bool misconfigured = false;  // the fault is one of the configuration
  int retries = 0;
  double latency_s = 0;  // from the first send to the last reply
};

// Sends until `judge` accepts, its budget is used up, or there is no hope. Every try has the same
// body and Idempotency-Key, and waits for its turn. The deadline for waits is the request's timeout
// after the first send, without the time it waited for its turns (endpoint.h). A try of
// which nothing was sent costs no retry, nor does one that failed while the endpoint was stopped
// for others' failures. Throws Error (kNoEndpoint) when the endpoint is given up.
asio::awaitable<Delivery> deliver(Environment::Impl&, Endpoint&, Trace&, Parcel,
                                  std::function<Judgement(const HttpReply&, bool resent)> judge);

}  // namespace rollcall
