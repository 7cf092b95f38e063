// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/tool_call.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "rollout_workers/delivery.h"
#include "rollout_workers/tool_reply.h"
#include "rollout_workers/utf8.h"

namespace rollcall {
namespace {

constexpr std::int64_t kEnvelopeBytes = 4096;  // of a reply, around its output

bool replayed(const HttpReply& reply) {
  for (const char* name : {"idempotent-replayed", "idempotency-replayed"}) {
    const std::string* value = find_header(reply, name);
    if (value != nullptr && *value == "true") return true;
  }
  return false;
}

Parcel make_parcel(const ToolEndpoint& tool, const Trace& trace, const Task& task,
                   const ToolEvent& call) {
  const ToolOptions& options = tool.options;
  Parcel parcel;
  parcel.request.url = options.url;
  parcel.request.headers = options.headers;
  parcel.request.body = tool_request_body(call, trace.id, options.send_item ? task.item : "{}");
  parcel.request.timeout = options.timeout;
  parcel.request.max_reply_bytes = options.max_output_bytes + kEnvelopeBytes;
  parcel.idempotency_key = trace.id + ":" + call.call_id;
  parcel.rollout = trace.rollout;
  parcel.max_retries = options.max_retries;
  parcel.may_repeat = options.retry == RetryPolicy::kAlways ||
                      (options.retry == RetryPolicy::kKeyed && tool.replays);
  return parcel;
}

Judgement judge_reply(const HttpReply& reply, bool resent, const std::string& call_id,
                      const Redactor& redact, std::optional<ToolReply>& parsed) {
  parsed = reply.too_large ? std::nullopt : read_tool_reply(reply.body, call_id);
  if (reply.status == 422 && parsed) return {};  // the tool's own answer, not about the key
  Judgement judgement = judge_status(reply, resent, redact);
  if (judgement.verdict != Verdict::kAccept || reply.too_large) return judgement;
  if (reply.status < 300 && !parsed)
    return {Verdict::kRetry, "HTTP " + std::to_string(reply.status) +
                                 " without a readable output for " + call_id + ": " +
                                 redact.line(reply.body, 200)};
  return judgement;
}

// What the model is shown of an accepted reply. A secret is redacted before anything is cut.
void show(HttpReply reply, std::optional<ToolReply> parsed, const ToolOptions& options,
          const Redactor& redact, ToolOutcome& outcome) {
  const auto limit = static_cast<std::size_t>(options.max_output_bytes);
  outcome.event.is_error = reply.status >= 400;
  if (reply.too_large || (parsed && parsed->output.size() > limit)) {
    outcome.event.is_error = true;
    outcome.event.output = tool_error_text(
        "output_too_large", "the output is larger than " + std::to_string(limit) + " bytes", 413);
  } else if (parsed) {
    outcome.event.output = redact(std::move(parsed->output));
  } else if (reply.body.empty()) {
    outcome.event.output = tool_error_text("http_error", "the tool gave no reason", reply.status);
  } else {
    outcome.event.output = to_valid_utf8(redact(std::move(reply.body)), limit);
  }
  if (!parsed) return;
  outcome.done = parsed->done;
  outcome.metrics = std::move(parsed->metrics);
  for (auto& [name, value] : outcome.metrics) name = redact(std::move(name));
}

}  // namespace

std::string tool_request_body(const ToolEvent& call, std::string_view trace_id,
                              std::string_view item) {
  const std::string_view number = std::string_view(call.call_id).substr(call.call_id.find('_') + 1);
  const nlohmann::ordered_json head{
      {"type", "function_call"}, {"id", "fc_" + std::string(number)}, {"call_id", call.call_id},
      {"name", call.name},       {"arguments", call.arguments},       {"trace_id", trace_id}};
  std::string body = head.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  body.pop_back();
  return body.append(",\"item\":").append(item).append("}");
}

asio::awaitable<void> call_tool(Environment::Impl& environment, ToolEndpoint& tool, Trace& trace,
                                const Task& task, ToolOutcome& outcome) {
  std::optional<ToolReply> parsed;
  Parcel parcel = make_parcel(tool, trace, task, outcome.event);
  const Redactor& redact = environment.redact;
  const auto judge = [&](const HttpReply& reply, bool resent) {
    return judge_reply(reply, resent, outcome.event.call_id, redact, parsed);
  };
  Delivery delivery = co_await deliver(environment, tool.endpoint, trace, std::move(parcel), judge);
  tool.replays = tool.replays || replayed(delivery.reply);
  outcome.event.status = delivery.reply.status;
  outcome.event.retries = delivery.retries;
  outcome.event.latency_s = delivery.latency_s;
  if (!delivery.fault.empty()) {
    outcome.fault = tool.endpoint.label() + " after " + std::to_string(delivery.retries) +
                    " retries: " + delivery.fault;
    outcome.misconfigured = delivery.misconfigured;
    co_return;
  }
  show(std::move(delivery.reply), std::move(parsed), tool.options, redact, outcome);
}

}  // namespace rollcall
