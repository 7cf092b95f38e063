// SPDX-License-Identifier: Apache-2.0
#include "trainer/journal_columns.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "comms/error.h"

namespace rollcall {
namespace {

using nlohmann::json;

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// Pairs, not an object: order and repeated names survive.
template <class Value>
std::string pairs_to_json(const std::vector<std::pair<std::string, Value>>& pairs) {
  json out = json::array();
  for (const auto& [name, value] : pairs) out.push_back(json::array({name, value}));
  return dump(out);
}

// JSON has no NaN: it is written as null.
double number_of(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

std::vector<std::pair<std::string, double>> sub_rewards_of(std::string_view text) {
  std::vector<std::pair<std::string, double>> out;
  for (const json& pair : json::parse(text)) {
    out.emplace_back(pair.at(0).get<std::string>(), number_of(pair.at(1)));
  }
  return out;
}

std::vector<std::pair<std::string, bool>> gates_of(std::string_view text) {
  std::vector<std::pair<std::string, bool>> out;
  for (const json& pair : json::parse(text)) {
    out.emplace_back(pair.at(0).get<std::string>(), pair.at(1).get<bool>());
  }
  return out;
}

RowRecord record_of(const Trajectory& t) {
  RowRecord row;
  const Assignment& a = t.assignment;
  row.step = a.step;
  row.group = a.group;
  row.task_row = a.task_row;
  row.seed = a.seed;
  row.version = a.version;
  row.prompt_length = t.prompt_length;
  row.prefill_tokens = t.prefill_tokens;
  row.score = t.grade.score;
  row.reward = t.grade.reward;
  row.grade_latency_s = t.grade.latency_s;
  row.wall_time_s = t.wall_time_s;
  row.generate_time_s = t.generate_time_s;
  row.member = a.member;
  row.attempt = a.attempt;
  row.turns = t.turns;
  row.worker = t.worker;
  row.grade_retries = t.grade.retries;
  row.split = static_cast<std::uint8_t>(a.split);
  row.end = static_cast<std::uint8_t>(t.end);
  row.fault = static_cast<std::uint8_t>(t.fault);
  row.passed = t.grade.passed ? 1 : 0;
  std::copy(t.trace_id.begin(), t.trace_id.end(), row.trace_id.begin());
  return row;
}

EventRecord record_of(const ToolEvent& event) {
  return {.latency_s = event.latency_s,
          .span_begin = event.span_begin,
          .span_end = event.span_end,
          .turn = event.turn,
          .status = event.status,
          .retries = event.retries,
          .is_error = event.is_error ? 1 : 0};
}

void append_text(std::string& bytes, std::vector<std::int64_t>& ends, std::string_view text) {
  bytes += text;
  ends.push_back(static_cast<std::int64_t>(bytes.size()));
}

template <class T>
void extend(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// Cuts `bytes` at `ends`, one piece after the other.
class Pieces {
 public:
  Pieces(std::string_view bytes, const std::vector<std::int64_t>& ends)
      : bytes_(bytes), ends_(ends) {}

  std::string_view next() {
    if (used_ == ends_.size() || ends_[used_] < begin_ ||
        ends_[used_] > static_cast<std::int64_t>(bytes_.size())) {
      throw Error("journal: the offsets of a row's texts are damaged");
    }
    const std::int64_t end = ends_[used_++];
    const std::string_view piece = bytes_.substr(begin_, end - begin_);
    begin_ = end;
    return piece;
  }

 private:
  std::string_view bytes_;
  const std::vector<std::int64_t>& ends_;
  std::size_t used_ = 0;
  std::int64_t begin_ = 0;
};

class Hash {
 public:
  Hash() : state_(XXH3_createState(), &XXH3_freeState) { XXH3_64bits_reset(state_.get()); }

  template <class Container>
  void add(const Container& values) {
    XXH3_64bits_update(state_.get(), values.data(), values.size() * sizeof(*values.data()));
  }
  std::uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

ToolEvent event_of(const EventRecord& record, Pieces& texts) {
  ToolEvent event;
  event.turn = record.turn;
  event.status = record.status;
  event.is_error = record.is_error != 0;
  event.latency_s = record.latency_s;
  event.retries = record.retries;
  event.span_begin = record.span_begin;
  event.span_end = record.span_end;
  event.call_id = texts.next();
  event.name = texts.next();
  event.arguments = texts.next();
  event.output = texts.next();
  return event;
}

void read_texts(const JournalColumns& columns, Trajectory& t) {
  Pieces texts(columns.texts, columns.text_ends);
  t.grade.explanation = texts.next();
  t.final_text = texts.next();
  t.fault_detail = texts.next();
  t.grade.sub_rewards = sub_rewards_of(texts.next());
  t.grade.gates = gates_of(texts.next());
  t.grade.flags = json::parse(texts.next()).get<std::vector<std::string>>();
}

}  // namespace

void check_storable(const Trajectory& t) {
  const std::size_t n = t.tokens.size();
  if (t.is_action.size() != n || t.behavior_logprobs.size() != n || t.token_version.size() != n) {
    throw Error("journal: trajectory " + t.trace_id + " has token arrays of unequal length");
  }
  if (t.trace_id.size() > RowRecord{}.trace_id.size()) {
    throw Error("journal: trace_id '" + t.trace_id + "' is longer than 48 bytes");
  }
}

void append_row(JournalColumns& columns, const Trajectory& t) {
  JournalColumns one;
  one.rows.push_back(record_of(t));
  for (const ToolEvent& event : t.tool_events) {
    one.events.push_back(record_of(event));
    for (const std::string* text : {&event.call_id, &event.name, &event.arguments, &event.output}) {
      append_text(one.event_texts, one.event_text_ends, *text);
    }
  }
  const Grade& grade = t.grade;
  for (const std::string& text :
       {grade.explanation, t.final_text, t.fault_detail, pairs_to_json(grade.sub_rewards),
        pairs_to_json(grade.gates), dump(json(grade.flags))}) {
    append_text(one.texts, one.text_ends, text);
  }
  one.tokens = t.tokens;
  one.is_action = t.is_action;
  one.behavior_logprobs = t.behavior_logprobs;
  one.token_version = t.token_version;
  one.rows[0].checksum = checksum_of(one);

  const auto texts_before = static_cast<std::int64_t>(columns.texts.size());
  const auto event_texts_before = static_cast<std::int64_t>(columns.event_texts.size());
  extend(columns.rows, one.rows);
  extend(columns.tokens, one.tokens);
  extend(columns.is_action, one.is_action);
  extend(columns.behavior_logprobs, one.behavior_logprobs);
  extend(columns.token_version, one.token_version);
  extend(columns.events, one.events);
  columns.texts += one.texts;
  columns.event_texts += one.event_texts;
  for (std::int64_t end : one.text_ends) columns.text_ends.push_back(texts_before + end);
  for (std::int64_t end : one.event_text_ends) {
    columns.event_text_ends.push_back(event_texts_before + end);
  }
  columns.token_ends.push_back(static_cast<std::int64_t>(columns.tokens.size()));
  columns.event_ends.push_back(static_cast<std::int64_t>(columns.events.size()));
}

std::uint64_t checksum_of(const JournalColumns& columns) {
  std::vector<RowRecord> row = columns.rows;
  row.at(0).checksum = 0;
  Hash hash;
  hash.add(row);
  hash.add(columns.tokens);
  hash.add(columns.is_action);
  hash.add(columns.behavior_logprobs);
  hash.add(columns.token_version);
  hash.add(columns.events);
  hash.add(columns.text_ends);
  hash.add(columns.texts);
  hash.add(columns.event_text_ends);
  hash.add(columns.event_texts);
  return hash.value();
}

Trajectory trajectory_of(const RowRecord& row) {
  if (row.split > static_cast<std::uint8_t>(Split::kCanary) ||
      row.end > static_cast<std::uint8_t>(EndReason::kInfraExhausted) ||
      row.fault > static_cast<std::uint8_t>(FaultReason::kCancelled)) {
    throw Error("journal: a row holds an unknown split, end or fault");
  }
  Trajectory t;
  t.assignment = {.step = row.step,
                  .group = row.group,
                  .member = row.member,
                  .attempt = row.attempt,
                  .task_row = row.task_row,
                  .seed = row.seed,
                  .version = row.version,
                  .split = static_cast<Split>(row.split)};
  const auto* end = std::find(row.trace_id.begin(), row.trace_id.end(), '\0');
  t.trace_id.assign(row.trace_id.begin(), end);
  t.prompt_length = row.prompt_length;
  t.prefill_tokens = row.prefill_tokens;
  t.turns = row.turns;
  t.grade.score = row.score;
  t.grade.reward = row.reward;
  t.grade.passed = row.passed != 0;
  t.grade.latency_s = row.grade_latency_s;
  t.grade.retries = row.grade_retries;
  t.end = static_cast<EndReason>(row.end);
  t.fault = static_cast<FaultReason>(row.fault);
  t.wall_time_s = row.wall_time_s;
  t.generate_time_s = row.generate_time_s;
  t.worker = row.worker;
  return t;
}

Trajectory trajectory_of(const JournalColumns& columns) {
  Trajectory t = trajectory_of(columns.rows.at(0));
  t.tokens = columns.tokens;
  t.is_action = columns.is_action;
  t.behavior_logprobs = columns.behavior_logprobs;
  t.token_version = columns.token_version;
  try {
    read_texts(columns, t);
  } catch (const json::exception& error) {
    throw Error(std::string("journal: stored grade is damaged: ") + error.what());
  }
  Pieces event_texts(columns.event_texts, columns.event_text_ends);
  for (const EventRecord& event : columns.events) {
    t.tool_events.push_back(event_of(event, event_texts));
  }
  return t;
}

}  // namespace rollcall
