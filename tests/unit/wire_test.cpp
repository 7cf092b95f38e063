// SPDX-License-Identifier: Apache-2.0
#include "comms/wire.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "comms/error.h"
#include "comms/link_messages.h"

namespace rollcall {
namespace {

Assignment some_assignment() {
  return {.step = 12,
          .group = -3,
          .member = 7,
          .attempt = 2,
          .task_row = 4'000'000'000,
          .seed = 0xFEDCBA9876543210,
          .version = 11,
          .split = Split::kValid,
          .rare = true};
}

Trajectory some_trajectory() {
  Trajectory value;
  value.assignment = some_assignment();
  value.trace_id = "trace_0f";
  value.tokens = {5, -1, 151935};
  value.is_action = {0, 1, 1};
  value.behavior_logprobs = {0, -0.25F, -13.5F};
  value.token_version = {-1, 11, 12};
  value.prompt_length = 1;
  value.turns = 2;
  value.prefill_tokens = 11;
  value.tool_events = {{.turn = 1,
                        .call_id = "call_1",
                        .name = "get_invoice",
                        .arguments = R"({"id":"\u00e9"})",
                        .output = std::string("a\0b", 3),
                        .status = 500,
                        .is_error = true,
                        .latency_s = 0.5,
                        .retries = 3,
                        .span_begin = 1,
                        .span_end = 2}};
  value.grade = {.score = 0.75,
                 .reward = -0.5,
                 .passed = true,
                 .sub_rewards = {{"format", 1}, {"", 0.5}},
                 .gates = {{"safe", true}, {"short", false}},
                 .flags = {"hacking", ""},
                 .explanation = "because",
                 .latency_s = 1.5,
                 .retries = 1};
  value.end = EndReason::kInfraExhausted;
  value.fault = FaultReason::kMasked;
  value.fault_detail = "detail";
  value.final_text = "done";
  value.wall_time_s = 3.25;
  value.generate_time_s = 1.125;
  value.worker = 3;
  return value;
}

bool decodes(std::string_view bytes) {
  try {
    decode_trajectory(bytes);
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(Wire, AssignmentHasTheDocumentedBytes) {
  const std::string bytes =
      encode(Assignment{.step = 0x0102, .member = -1, .split = Split::kValid, .rare = true});
  ASSERT_EQ(bytes.size(), 2 + 8 + 8 + 4 + 4 + 8 + 8 + 8 + 1 + 1U);
  EXPECT_EQ(bytes.substr(0, 4), std::string("A\x02\x02\x01"));
  EXPECT_EQ(bytes.substr(18, 4), "\xFF\xFF\xFF\xFF");
  EXPECT_EQ(bytes.substr(bytes.size() - 2), "\x01\x01");
}

TEST(Wire, AssignmentComesBack) {
  EXPECT_EQ(decode_assignment(encode(some_assignment())), some_assignment());
}

TEST(Wire, TrajectoryComesBack) {
  const Trajectory before = some_trajectory();
  const std::string bytes = encode(before);
  const Trajectory after = decode_trajectory(bytes);
  EXPECT_EQ(encode(after), bytes);
  EXPECT_EQ(after.assignment, before.assignment);
  EXPECT_EQ(after.tokens, before.tokens);
  EXPECT_EQ(after.is_action, before.is_action);
  EXPECT_EQ(after.behavior_logprobs, before.behavior_logprobs);
  EXPECT_EQ(after.token_version, before.token_version);
  EXPECT_EQ(after.tool_events.at(0).output, before.tool_events[0].output);
  EXPECT_EQ(after.grade.passed, before.grade.passed);
  EXPECT_EQ(after.grade.gates, before.grade.gates);
  EXPECT_EQ(after.grade.sub_rewards, before.grade.sub_rewards);
  EXPECT_EQ(after.grade.flags, before.grade.flags);
  EXPECT_EQ(after.prefill_tokens, before.prefill_tokens);
  EXPECT_EQ(after.end, before.end);
  EXPECT_EQ(after.fault, before.fault);
  EXPECT_EQ(after.generate_time_s, before.generate_time_s);
  EXPECT_EQ(after.worker, before.worker);
}

TEST(Wire, EmptyTrajectoryComesBack) {
  EXPECT_EQ(encode(decode_trajectory(encode(Trajectory{}))), encode(Trajectory{}));
}

TEST(Wire, RefusesRecordsCutShortAtEveryByte) {
  const std::string trajectory = encode(some_trajectory());
  for (std::size_t size = 0; size < trajectory.size(); ++size) {
    EXPECT_THROW(decode_trajectory(std::string_view(trajectory).substr(0, size)), Error) << size;
  }
  const std::string assignment = encode(some_assignment());
  for (std::size_t size = 0; size < assignment.size(); ++size) {
    EXPECT_THROW(decode_assignment(std::string_view(assignment).substr(0, size)), Error) << size;
  }
}

TEST(Wire, RefusesTrailingBytes) {
  EXPECT_THROW(decode_trajectory(encode(some_trajectory()) + '\0'), Error);
  EXPECT_THROW(decode_assignment(encode(some_assignment()) + '\0'), Error);
}

TEST(Wire, RefusesOtherKindsAndVersions) {
  std::string bytes = encode(some_assignment());
  EXPECT_THROW(decode_trajectory(bytes), Error);
  ++bytes[1];
  EXPECT_THROW(decode_assignment(bytes), Error);
}

TEST(Wire, RefusesAnUnknownEnumerator) {
  std::string bytes = encode(some_assignment());
  bytes.back() = 3;
  EXPECT_THROW(decode_assignment(bytes), Error);
}

TEST(Wire, RefusesAbsurdLengthsWithoutAllocating) {
  const std::string good = encode(some_trajectory());
  const std::size_t trace_length_at = encode(some_assignment()).size();
  for (const std::uint64_t length :
       {std::uint64_t{1} << 62, ~std::uint64_t{0}, std::uint64_t{good.size()}}) {
    std::string bytes = good;
    std::memcpy(bytes.data() + trace_length_at, &length, sizeof length);
    EXPECT_THROW(decode_trajectory(bytes), Error);
    const std::size_t tokens_length_at = trace_length_at + 8 + some_trajectory().trace_id.size();
    bytes = good;
    std::memcpy(bytes.data() + tokens_length_at, &length, sizeof length);
    EXPECT_THROW(decode_trajectory(bytes), Error);
  }
}

TEST(Wire, RefusesArraysThatDisagree) {
  Trajectory value = some_trajectory();
  value.token_version.pop_back();
  EXPECT_THROW(decode_trajectory(encode(value)), Error);
  value = some_trajectory();
  value.is_action[0] = 2;
  EXPECT_THROW(decode_trajectory(encode(value)), Error);
  value = some_trajectory();
  value.prompt_length = 4;
  EXPECT_THROW(decode_trajectory(encode(value)), Error);
}

TEST(Wire, MutatedRecordsGiveAnErrorOrARecord) {
  const std::string good = encode(some_trajectory());
  std::mt19937_64 random(7);
  int accepted = 0;
  for (int round = 0; round < 50000; ++round) {
    std::string bytes = good;
    for (std::uint64_t edits = 1 + random() % 4; edits > 0; --edits) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] ^= static_cast<char>(1 << random() % 8);
          break;
        case 2:
          bytes.erase(at, 1 + random() % 8);
          break;
        default:
          bytes.insert(at, 1 + random() % 8, static_cast<char>(random()));
      }
      if (bytes.empty()) bytes = good;
    }
    accepted += decodes(bytes) ? 1 : 0;
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 50000);
}

// Cut at every byte a record is refused; changed at every byte it is refused or read.
template <typename Decode>
void cut_and_change(const std::string& whole, const Decode& decode) {
  for (std::size_t at = 0; at < whole.size(); ++at) {
    EXPECT_THROW(decode(std::string_view(whole).substr(0, at)), Error) << at;
    for (const char flip : {'\x01', '\x10', '\x80', '\xFF'}) {
      std::string changed = whole;
      changed[at] ^= flip;
      try {
        decode(changed);
      } catch (const Error&) {
      }
    }
  }
  EXPECT_THROW(decode(whole + '\0'), Error);
}

TEST(LinkMessages, AreRefusedWhereTheyAreCutShort) {
  const Welcome welcome{.parameter_bytes = 64,
                        .reader = 1,
                        .readers = 2,
                        .process = 3,
                        .shared_memory = true,
                        .address = {"/x", 9}};
  EXPECT_EQ(decode_welcome(encode(welcome)).address.path, "/x");
  cut_and_change(encode(Hello{"host/boot", 17}), decode_hello);
  cut_and_change(encode(welcome), decode_welcome);
  cut_and_change(encode(WeightsBegin{3, 4}), decode_weights_begin);
  cut_and_change(encode(Failure{ExitCode::kBadInput, "what", "to do"}), decode_failure);
  cut_and_change(encode(WeightsLoaded{3, 0.5}), decode_weights_loaded);
  cut_and_change(encode_number(8), decode_number);
}

TEST(LinkMessages, CarryTurnsWholeAndAreRefusedWhereTheyAreCutShort) {
  const std::string request = encode(TurnRequest{1, 5, {1, 2}, {3}, {16, {0}, 8}});
  EXPECT_EQ(encode(decode_turn_request(request)), request);
  cut_and_change(request, decode_turn_request);
  TurnReply reply{1, {{4, 5}, {-1, -2}, {0, 1}, 7, StopReason::kContextFull}};
  EXPECT_EQ(encode(decode_turn_reply(encode(reply))), encode(reply));
  cut_and_change(encode(reply), decode_turn_reply);
  reply.completion.versions.pop_back();
  EXPECT_THROW(decode_turn_reply(encode(reply)), Error) << "a token without a version";
}

TEST(LinkMessages, RefuseAnUnknownExitCode) {
  std::string bytes = encode(Failure{ExitCode::kNoEndpoint, "", ""});
  EXPECT_EQ(decode_failure(bytes).code, ExitCode::kNoEndpoint);
  ++bytes[0];
  EXPECT_THROW(decode_failure(bytes), Error);
  bytes.replace(0, 4, "\xFF\xFF\xFF\xFF");
  EXPECT_THROW(decode_failure(bytes), Error) << "a negative one";
}

TEST(EndpointList, ComesBackAndIsRefusedWhenCutShort) {
  std::vector<EndpointStatus> all(2);
  all[0] = {.name = "grader",
            .address = "http://g",
            .waiting = true,
            .held = 48,
            .down_s = 42.5,
            .error = "refused",
            .waited_s = 99,
            .openings = 3,
            .retries = 1'000'000'000'000};
  const std::string bytes = encode(all);
  EXPECT_EQ(decode_endpoints(bytes), all);
  EXPECT_EQ(decode_endpoints(encode(std::vector<EndpointStatus>())).size(), 0U);
  for (std::size_t size = 0; size < bytes.size(); ++size)
    EXPECT_THROW(decode_endpoints(bytes.substr(0, size)), Error) << size;
  EXPECT_THROW(decode_endpoints(bytes + "x"), Error);
}

TEST(Names, CoverEveryEnumerator) {
  EXPECT_STREQ(to_string(Split::kValid), "valid");
  for (int i = 0; i <= static_cast<int>(EndReason::kInfraExhausted); ++i) {
    EXPECT_STRNE(to_string(static_cast<EndReason>(i)), "unknown");
  }
  for (int i = 0; i <= static_cast<int>(FaultReason::kCancelled); ++i) {
    EXPECT_STRNE(to_string(static_cast<FaultReason>(i)), "unknown");
  }
  EXPECT_STREQ(to_string(FaultReason::kWorkerLost), "worker_lost");
}

}  // namespace
}  // namespace rollcall
