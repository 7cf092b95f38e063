// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "trainer/collector.h"

namespace rollcall {

// Counts rollouts as they arrive, and what was left out of them.
class Arrivals {
 public:
  // True for the first fault of its reason.
  bool add(const Trajectory&);

  std::int64_t count() const { return count_; }
  std::int64_t faults() const;
  std::string most_frequent_fault() const;  // "tool_fault"; empty if there is none
  // "  faults 3 (tool_fault)  masked 2" for the end of a line; what is 0 is left out.
  std::string left_out() const;

 private:
  std::int64_t count_ = 0, masked_ = 0;
  std::map<FaultReason, std::int64_t> faults_;
};

// Throws Error (kNoEndpoint) that names the first loss if the infrastructure lost every rollout of
// `what`. A rollout that was masked is not lost.
void refuse_if_all_lost(std::span<const Collected>, const std::string& what);

}  // namespace rollcall
