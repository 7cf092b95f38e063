// SPDX-License-Identifier: Apache-2.0
#include "comms/link_messages.h"

#include <fstream>

#include "comms/bytes.h"

namespace rollcall {

std::string encode(const Hello& value) {
  ByteWriter out;
  out.text(value.host);
  out.number(value.process);
  return out.take();
}

Hello decode_hello(std::string_view bytes) {
  ByteReader in(bytes, "hello");
  Hello value;
  value.host = in.text();
  value.process = in.number<std::int32_t>();
  in.finish();
  return value;
}

std::string encode(const Welcome& value) {
  ByteWriter out;
  out.number(value.parameter_bytes);
  out.number(value.reader);
  out.number(value.readers);
  out.number(value.process);
  out.boolean(value.shared_memory);
  out.text(value.address.path);
  out.number(value.address.nonce);
  return out.take();
}

Welcome decode_welcome(std::string_view bytes) {
  ByteReader in(bytes, "welcome");
  Welcome value;
  value.parameter_bytes = in.number<std::uint64_t>();
  value.reader = in.number<std::int32_t>();
  value.readers = in.number<std::int32_t>();
  value.process = in.number<std::int32_t>();
  value.shared_memory = in.boolean();
  value.address.path = in.text();
  value.address.nonce = in.number<std::uint64_t>();
  in.finish();
  return value;
}

std::string encode(const WeightsBegin& value) {
  ByteWriter out;
  out.number(value.version);
  out.number(value.checksum);
  return out.take();
}

WeightsBegin decode_weights_begin(std::string_view bytes) {
  ByteReader in(bytes, "weights");
  WeightsBegin value;
  value.version = in.number<std::int64_t>();
  value.checksum = in.number<std::uint64_t>();
  in.finish();
  return value;
}

std::string encode(const WeightsLoaded& value) {
  ByteWriter out;
  out.number(value.version);
  out.number(value.seconds);
  return out.take();
}

WeightsLoaded decode_weights_loaded(std::string_view bytes) {
  ByteReader in(bytes, "loaded weights");
  WeightsLoaded value;
  value.version = in.number<std::int64_t>();
  value.seconds = in.number<double>();
  in.finish();
  return value;
}

std::string encode(const Failure& value) {
  ByteWriter out;
  out.enumerator(value.code);
  out.text(value.what);
  out.text(value.what_to_do);
  return out.take();
}

Failure decode_failure(std::string_view bytes) {
  ByteReader in(bytes, "failure");
  Failure value;
  value.code = in.enumerator(ExitCode::kNoEndpoint);
  value.what = in.text();
  value.what_to_do = in.text();
  in.finish();
  return value;
}

std::string encode(const std::vector<EndpointStatus>& all) {
  ByteWriter out;
  out.number(static_cast<std::uint64_t>(all.size()));
  for (const EndpointStatus& one : all) {
    out.text(one.name);
    out.text(one.address);
    out.boolean(one.waiting);
    out.number(one.held);
    out.number(one.down_s);
    out.text(one.error);
    out.number(one.waited_s);
    out.number(one.openings);
    out.number(one.retries);
  }
  return out.take();
}

std::vector<EndpointStatus> decode_endpoints(std::string_view bytes) {
  constexpr std::size_t kSmallest = 61;  // bytes of one whose texts are empty
  ByteReader in(bytes, "endpoints");
  std::vector<EndpointStatus> all(in.count(kSmallest));
  for (EndpointStatus& one : all) {
    one.name = in.text();
    one.address = in.text();
    one.waiting = in.boolean();
    one.held = in.number<std::int32_t>();
    one.down_s = in.number<double>();
    one.error = in.text();
    one.waited_s = in.number<double>();
    one.openings = in.number<std::int64_t>();
    one.retries = in.number<std::int64_t>();
  }
  in.finish();
  return all;
}

std::string encode(const TurnRequest& value) {
  ByteWriter out;
  out.number(value.session);
  out.number(value.seed);
  out.array(value.prompt);
  out.array(value.delta);
  out.number(value.options.max_new_tokens);
  out.array(value.options.stop_ids);
  out.number(value.options.sampled_ids);
  return out.take();
}

TurnRequest decode_turn_request(std::string_view bytes) {
  ByteReader in(bytes, "turn request");
  TurnRequest value;
  value.session = in.number<std::int64_t>();
  value.seed = in.number<std::uint64_t>();
  value.prompt = in.array<std::int32_t>();
  value.delta = in.array<std::int32_t>();
  value.options.max_new_tokens = in.number<std::int32_t>();
  value.options.stop_ids = in.array<std::int32_t>();
  value.options.sampled_ids = in.number<std::int32_t>();
  in.finish();
  return value;
}

std::string encode(const TurnReply& value) {
  ByteWriter out;
  out.number(value.session);
  out.array(value.completion.tokens);
  out.array(value.completion.logprobs);
  out.array(value.completion.versions);
  out.number(value.completion.prefill_tokens);
  out.enumerator(value.completion.stop);
  return out.take();
}

TurnReply decode_turn_reply(std::string_view bytes) {
  ByteReader in(bytes, "turn reply");
  TurnReply value;
  value.session = in.number<std::int64_t>();
  Completion& turn = value.completion;
  turn.tokens = in.array<std::int32_t>();
  turn.logprobs = in.array<float>();
  turn.versions = in.array<std::int32_t>();
  turn.prefill_tokens = in.number<std::int64_t>();
  turn.stop = in.enumerator(StopReason::kContextFull);
  in.finish();
  if (turn.logprobs.size() != turn.tokens.size() || turn.versions.size() != turn.tokens.size())
    in.fail("arrays of several lengths");
  return value;
}

std::string encode_number(std::int64_t number) {
  ByteWriter out;
  out.number(number);
  return out.take();
}

std::int64_t decode_number(std::string_view bytes) {
  ByteReader in(bytes, "number");
  const auto number = in.number<std::int64_t>();
  in.finish();
  return number;
}

std::string system_identity(const std::string& host_name) {
  std::string boot_id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot_id;
  return host_name + "/" + boot_id;
}

}  // namespace rollcall
