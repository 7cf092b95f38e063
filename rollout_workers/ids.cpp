// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/ids.h"

#include <algorithm>
#include <cstdint>
#include <random>

namespace rollcall {
namespace {

constexpr std::string_view kTracePrefix = "trace_";

std::string random_hex(std::size_t digits) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::random_device entropy;
  std::string text;
  while (text.size() < digits) {
    for (std::uint32_t bits = entropy(), i = 0; i < 8; ++i, bits >>= 4)
      text.push_back(kDigits[bits & 15U]);
  }
  text.resize(digits);
  return text;
}

}  // namespace

std::string make_trace_id() {
  std::string uuid = random_hex(32);
  uuid[12] = '4';                                             // version, RFC 9562 5.4
  uuid[16] = "89ab"[static_cast<std::size_t>(uuid[16]) % 4];  // variant
  for (const std::size_t at : {20U, 16U, 12U, 8U}) uuid.insert(at, 1, '-');
  return std::string(kTracePrefix) + uuid;
}

std::string make_traceparent(std::string_view trace_id) {
  if (trace_id.starts_with(kTracePrefix)) trace_id.remove_prefix(kTracePrefix.size());
  std::string trace_part(trace_id);
  std::erase(trace_part, '-');
  return "00-" + trace_part + "-" + random_hex(16) + "-01";
}

std::string rollout_id(const Assignment& a) {
  return std::string("rollout_") + to_string(a.split) + "_" + std::to_string(a.step) + "_" +
         std::to_string(a.task_row) + "_" + std::to_string(a.group) + "_" +
         std::to_string(a.member);
}

}  // namespace rollcall
