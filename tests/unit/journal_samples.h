// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "comms/trajectory.h"
#include "tests/unit/temp_folder.h"

namespace rollcall {

inline std::string random_text(std::mt19937_64& random, std::size_t most) {
  std::string text(random() % (most + 1), '\0');
  for (char& c : text) c = static_cast<char>(random() % 256);
  return text;
}

inline ToolEvent sample_event(std::mt19937_64& random) {
  ToolEvent event;
  event.turn = static_cast<std::int32_t>(random() % 12);
  event.call_id = "call_" + std::to_string(random());
  event.name = "get_invoice";
  event.arguments = R"({"number":"A-)" + std::to_string(random() % 1000) + "\"}";
  event.output = random_text(random, 300);
  event.status = random() % 2 == 0 ? 200 : 503;
  event.is_error = random() % 4 == 0;
  event.latency_s = static_cast<double>(random() % 1000) / 997;
  event.retries = static_cast<std::int32_t>(random() % 3);
  event.span_begin = static_cast<std::int64_t>(random() % 100);
  event.span_end = event.span_begin + 7;
  return event;
}

// Every field filled, and different for every `row`; the same for the same row.
inline Trajectory sample_trajectory(std::int64_t row, std::size_t most_tokens = 400) {
  std::mt19937_64 random(static_cast<std::uint64_t>(row) + 1);
  Trajectory t;
  t.assignment = {.step = row / 8,
                  .group = row / 4,
                  .member = static_cast<std::int32_t>(row % 4),
                  .attempt = static_cast<std::int32_t>(random() % 3),
                  .task_row = static_cast<std::int64_t>(random() % 50),
                  .seed = random(),
                  .version = row / 8,
                  .split = random() % 5 == 0 ? Split::kValid : Split::kTrain};
  t.trace_id = "trace_0b1f4f9e-7c3d-4f6a-9a52-" + std::to_string(100000000000 + row);
  const std::size_t length = random() % (most_tokens + 1);
  for (std::size_t i = 0; i < length; ++i) {
    const bool action = random() % 2 == 0;
    t.tokens.push_back(static_cast<std::int32_t>(random() % 150000));
    t.is_action.push_back(action ? 1 : 0);
    t.behavior_logprobs.push_back(action ? -static_cast<float>(random() % 1000) / 77 : 0.0F);
    t.token_version.push_back(action ? static_cast<std::int32_t>(row / 8) : -1);
  }
  t.prompt_length = static_cast<std::int64_t>(length / 3);
  t.turns = static_cast<std::int32_t>(random() % 12);
  t.prefill_tokens = static_cast<std::int64_t>(random() % 3000);
  for (std::size_t i = random() % 5; i > 0; --i) t.tool_events.push_back(sample_event(random));
  t.grade.score = static_cast<double>(random() % 100) / 99;
  t.grade.reward = t.grade.score - 0.01;
  t.grade.passed = row % 3 == 0;
  t.grade.sub_rewards = {{"total", 0.1 + static_cast<double>(row)}, {"täx", 1.0 / 3}};
  t.grade.gates = {{"format", true}, {"no_guess", row % 2 == 0}};
  t.grade.flags = {"late", "…"};
  t.grade.explanation = random_text(random, 80);
  t.grade.latency_s = 0.25;
  t.grade.retries = 1;
  t.end = static_cast<EndReason>(random() % 9);
  t.fault = static_cast<FaultReason>(random() % 6);
  t.fault_detail = random_text(random, 20);
  t.final_text = "Σ = 12 €, row " + std::to_string(row);
  t.wall_time_s = 1.5 + static_cast<double>(row);
  t.generate_time_s = 0.75;
  t.worker = 3;
  return t;
}

// Equality of all fields, and where they differ, for a test's message.
inline bool same_event(const ToolEvent& a, const ToolEvent& b) {
  return a.turn == b.turn && a.call_id == b.call_id && a.name == b.name &&
         a.arguments == b.arguments && a.output == b.output && a.status == b.status &&
         a.is_error == b.is_error && a.latency_s == b.latency_s && a.retries == b.retries &&
         a.span_begin == b.span_begin && a.span_end == b.span_end;
}

inline std::string difference(const Trajectory& a, const Trajectory& b) {
  if (a.assignment != b.assignment) return "assignment";
  if (a.trace_id != b.trace_id) return "trace_id";
  if (a.tokens != b.tokens) return "tokens";
  if (a.is_action != b.is_action) return "is_action";
  if (a.behavior_logprobs != b.behavior_logprobs) return "behavior_logprobs";
  if (a.token_version != b.token_version) return "token_version";
  if (a.prompt_length != b.prompt_length || a.turns != b.turns) return "prompt_length or turns";
  if (a.prefill_tokens != b.prefill_tokens) return "prefill_tokens";
  if (!std::equal(a.tool_events.begin(), a.tool_events.end(), b.tool_events.begin(),
                  b.tool_events.end(), same_event)) {
    return "tool_events";
  }
  if (a.grade.score != b.grade.score || a.grade.reward != b.grade.reward) return "score or reward";
  if (a.grade.passed != b.grade.passed) return "passed";
  if (a.grade.sub_rewards != b.grade.sub_rewards) return "sub_rewards";
  if (a.grade.gates != b.grade.gates || a.grade.flags != b.grade.flags) return "gates or flags";
  if (a.grade.explanation != b.grade.explanation) return "explanation";
  if (a.grade.latency_s != b.grade.latency_s || a.grade.retries != b.grade.retries) return "grade";
  if (a.end != b.end || a.fault != b.fault) return "end or fault";
  if (a.fault_detail != b.fault_detail) return "fault_detail";
  if (a.final_text != b.final_text) return "final_text";
  if (a.wall_time_s != b.wall_time_s || a.generate_time_s != b.generate_time_s) return "timings";
  return a.worker == b.worker ? "" : "worker";
}

}  // namespace rollcall
