// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "comms/trajectory.h"

namespace rollcall {

// One element of the journal's `rows` table: every scalar of a Trajectory. The members leave no
// padding, so that the bytes can be hashed.
struct RowRecord {
  std::int64_t step = 0, group = 0, task_row = 0;
  std::uint64_t seed = 0;
  std::int64_t version = 0, prompt_length = 0, prefill_tokens = 0;
  double score = 0, reward = 0;
  double grade_latency_s = 0, wall_time_s = 0, generate_time_s = 0;
  std::uint64_t checksum = 0;  // XXH3-64 of the whole row: see checksum_of()
  std::int32_t member = 0, attempt = 0, turns = 0, worker = 0, grade_retries = 0;
  std::uint8_t split = 0, end = 0, fault = 0, passed = 0;
  std::array<char, 48> trace_id{};  // padded with zeros
};
static_assert(sizeof(RowRecord) == 13 * 8 + 5 * 4 + 4 + 48);

// One element of `tool_events`.
struct EventRecord {
  double latency_s = 0;
  std::int64_t span_begin = 0, span_end = 0;
  std::int32_t turn = 0, status = 0, retries = 0, is_error = 0;
};
static_assert(sizeof(EventRecord) == 3 * 8 + 4 * 4);

inline constexpr std::int64_t kTextsPerRow = 6;    // explanation ... flags, in this order
inline constexpr std::int64_t kTextsPerEvent = 4;  // call_id, name, arguments, output

// Some trajectories as the journal stores them: flat arrays with ends (CSR). Ends count from the
// start of these columns; the file adds where they begin.
struct JournalColumns {
  std::vector<RowRecord> rows;
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> is_action;
  std::vector<float> behavior_logprobs;
  std::vector<std::int32_t> token_version;
  std::vector<std::int64_t> token_ends;  // one a row
  std::vector<EventRecord> events;
  std::vector<std::int64_t> event_ends;  // one a row
  std::string texts;
  std::vector<std::int64_t> text_ends;  // kTextsPerRow a row
  std::string event_texts;
  std::vector<std::int64_t> event_text_ends;  // kTextsPerEvent an event
};

// Throws Error if the trajectory cannot be stored: arrays of unequal length, a trace_id beyond 48
// bytes.
void check_storable(const Trajectory&);

// Appends one row, checksum included.
void append_row(JournalColumns&, const Trajectory&);

// Hash of the only row in `columns`, taken with RowRecord::checksum = 0: row, tokens, is_action,
// behavior_logprobs, token_version, events, texts and event_texts with the ends of both.
std::uint64_t checksum_of(const JournalColumns& columns);

// The scalars of a row, without arrays, texts and events. Throws Error for an unknown enumerator.
Trajectory trajectory_of(const RowRecord&);
// The only row in `columns`. Throws Error if the ends do not fit the texts or a stored JSON is
// unreadable; does not look at the checksum. Token arrays may be empty.
Trajectory trajectory_of(const JournalColumns& columns);

}  // namespace rollcall
