// SPDX-License-Identifier: Apache-2.0
#include "trainer/arrivals.h"

#include <fmt/format.h>

#include <algorithm>

#include "comms/error.h"

namespace rollcall {

bool Arrivals::add(const Trajectory& t) {
  ++count_;
  if (t.fault == FaultReason::kMasked) ++masked_;
  return infrastructure_failed(t.fault) && ++faults_[t.fault] == 1;
}

std::int64_t Arrivals::faults() const {
  std::int64_t sum = 0;
  for (const auto& [reason, count] : faults_) sum += count;
  return sum;
}

std::string Arrivals::most_frequent_fault() const {
  const auto most = std::max_element(faults_.begin(), faults_.end(),
                                     [](auto& a, auto& b) { return a.second < b.second; });
  return most == faults_.end() ? "" : to_string(most->first);
}

std::string Arrivals::left_out() const {
  std::string text;
  if (!faults_.empty()) text += fmt::format("  faults {} ({})", faults(), most_frequent_fault());
  if (masked_ > 0) text += fmt::format("  masked {}", masked_);
  return text;
}

void refuse_if_all_lost(std::span<const Collected> collected, const std::string& what) {
  const auto lost = [](const Collected& c) { return lost_to_infrastructure(*c.trajectory); };
  if (!std::all_of(collected.begin(), collected.end(), lost)) return;
  const Trajectory& first = *collected.front().trajectory;
  throw Error(
      fmt::format("every rollout of {} failed in the infrastructure; the first: {} ({})", what,
                  first.fault == FaultReason::kNone ? to_string(first.end) : to_string(first.fault),
                  first.fault_detail),
      "mend what it names, or wait until its server answers again, then start again: a training "
      "run resumes",
      ExitCode::kNoEndpoint);
}

}  // namespace rollcall
