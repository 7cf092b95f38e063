// SPDX-License-Identifier: Apache-2.0
#include "comms/wire.h"

#include "comms/bytes.h"

namespace rollcall {
namespace {

constexpr std::uint8_t kAssignmentKind = 'A';
constexpr std::uint8_t kTrajectoryKind = 'T';
constexpr std::uint8_t kVersion = 2;
constexpr std::size_t kLengthBytes = sizeof(std::uint64_t);

void open_record(ByteWriter& out, std::uint8_t kind) {
  out.number(kind);
  out.number(kVersion);
}

void open_record(ByteReader& in, std::uint8_t kind) {
  if (in.number<std::uint8_t>() != kind) in.fail("another kind's tag");
  if (in.number<std::uint8_t>() != kVersion) in.fail("another format version");
}

void write(ByteWriter& out, const Assignment& value) {
  out.number(value.step);
  out.number(value.group);
  out.number(value.member);
  out.number(value.attempt);
  out.number(value.task_row);
  out.number(value.seed);
  out.number(value.version);
  out.enumerator(value.split);
  out.boolean(value.rare);
}

Assignment read_assignment(ByteReader& in) {
  Assignment value;
  value.step = in.number<std::int64_t>();
  value.group = in.number<std::int64_t>();
  value.member = in.number<std::int32_t>();
  value.attempt = in.number<std::int32_t>();
  value.task_row = in.number<std::int64_t>();
  value.seed = in.number<std::uint64_t>();
  value.version = in.number<std::int64_t>();
  value.split = in.enumerator(Split::kCanary);
  value.rare = in.boolean();
  return value;
}

void write(ByteWriter& out, const ToolEvent& value) {
  out.number(value.turn);
  out.text(value.call_id);
  out.text(value.name);
  out.text(value.arguments);
  out.text(value.output);
  out.number(value.status);
  out.boolean(value.is_error);
  out.number(value.latency_s);
  out.number(value.retries);
  out.number(value.span_begin);
  out.number(value.span_end);
}

constexpr std::size_t kToolEventBytes = 4 + 4 * kLengthBytes + 4 + 1 + 8 + 4 + 8 + 8;

ToolEvent read_tool_event(ByteReader& in) {
  ToolEvent value;
  value.turn = in.number<std::int32_t>();
  value.call_id = in.text();
  value.name = in.text();
  value.arguments = in.text();
  value.output = in.text();
  value.status = in.number<std::int32_t>();
  value.is_error = in.boolean();
  value.latency_s = in.number<double>();
  value.retries = in.number<std::int32_t>();
  value.span_begin = in.number<std::int64_t>();
  value.span_end = in.number<std::int64_t>();
  return value;
}

void write(ByteWriter& out, const Grade& value) {
  out.number(value.score);
  out.number(value.reward);
  out.boolean(value.passed);
  out.number(static_cast<std::uint64_t>(value.sub_rewards.size()));
  for (const auto& [name, reward] : value.sub_rewards) {
    out.text(name);
    out.number(reward);
  }
  out.number(static_cast<std::uint64_t>(value.gates.size()));
  for (const auto& [name, passed] : value.gates) {
    out.text(name);
    out.boolean(passed);
  }
  out.number(static_cast<std::uint64_t>(value.flags.size()));
  for (const std::string& flag : value.flags) out.text(flag);
  out.text(value.explanation);
  out.number(value.latency_s);
  out.number(value.retries);
}

Grade read_grade(ByteReader& in) {
  Grade value;
  value.score = in.number<double>();
  value.reward = in.number<double>();
  value.passed = in.boolean();
  value.sub_rewards.resize(in.count(kLengthBytes + sizeof(double)));
  for (auto& [name, reward] : value.sub_rewards) {
    name = in.text();
    reward = in.number<double>();
  }
  value.gates.resize(in.count(kLengthBytes + 1));
  for (auto& [name, passed] : value.gates) {
    name = in.text();
    passed = in.boolean();
  }
  value.flags.resize(in.count(kLengthBytes));
  for (std::string& flag : value.flags) flag = in.text();
  value.explanation = in.text();
  value.latency_s = in.number<double>();
  value.retries = in.number<std::int32_t>();
  return value;
}

// The learner indexes the four arrays by the same token, so a record may not disagree with itself.
void check_arrays(const ByteReader& in, const Trajectory& value) {
  const std::size_t tokens = value.tokens.size();
  if (value.is_action.size() != tokens || value.behavior_logprobs.size() != tokens ||
      value.token_version.size() != tokens) {
    in.fail("token arrays of different lengths");
  }
  for (const std::uint8_t flag : value.is_action) {
    if (flag > 1) in.fail("an is_action that is neither 0 nor 1");
  }
  if (value.prompt_length < 0 || value.prompt_length > static_cast<std::int64_t>(tokens)) {
    in.fail("a prompt longer than its tokens");
  }
}

}  // namespace

std::string encode(const Assignment& value) {
  ByteWriter out;
  open_record(out, kAssignmentKind);
  write(out, value);
  return out.take();
}

std::string encode(const Trajectory& value) {
  ByteWriter out;
  open_record(out, kTrajectoryKind);
  write(out, value.assignment);
  out.text(value.trace_id);
  out.array(value.tokens);
  out.array(value.is_action);
  out.array(value.behavior_logprobs);
  out.array(value.token_version);
  out.number(value.prompt_length);
  out.number(value.turns);
  out.number(value.prefill_tokens);
  out.number(static_cast<std::uint64_t>(value.tool_events.size()));
  for (const ToolEvent& event : value.tool_events) write(out, event);
  write(out, value.grade);
  out.enumerator(value.end);
  out.enumerator(value.fault);
  out.text(value.fault_detail);
  out.text(value.final_text);
  out.number(value.wall_time_s);
  out.number(value.generate_time_s);
  out.number(value.worker);
  return out.take();
}

Assignment decode_assignment(std::string_view bytes) {
  ByteReader in(bytes, "assignment");
  open_record(in, kAssignmentKind);
  const Assignment value = read_assignment(in);
  in.finish();
  return value;
}

Trajectory decode_trajectory(std::string_view bytes) {
  ByteReader in(bytes, "trajectory");
  open_record(in, kTrajectoryKind);
  Trajectory value;
  value.assignment = read_assignment(in);
  value.trace_id = in.text();
  value.tokens = in.array<std::int32_t>();
  value.is_action = in.array<std::uint8_t>();
  value.behavior_logprobs = in.array<float>();
  value.token_version = in.array<std::int32_t>();
  value.prompt_length = in.number<std::int64_t>();
  value.turns = in.number<std::int32_t>();
  value.prefill_tokens = in.number<std::int64_t>();
  value.tool_events.resize(in.count(kToolEventBytes));
  for (ToolEvent& event : value.tool_events) event = read_tool_event(in);
  value.grade = read_grade(in);
  value.end = in.enumerator(EndReason::kInfraExhausted);
  value.fault = in.enumerator(FaultReason::kCancelled);
  value.fault_detail = in.text();
  value.final_text = in.text();
  value.wall_time_s = in.number<double>();
  value.generate_time_s = in.number<double>();
  value.worker = in.number<std::int32_t>();
  in.finish();
  check_arrays(in, value);
  return value;
}

}  // namespace rollcall
