// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

// Faults on purpose, for tests. ROLLCALL_FAULTS in the environment lists them, separated by commas:
//
//   RANK:PLACE:N:kill        when rank RANK comes to PLACE for the N-th time (from 1) it is killed
//   RANK:PLACE:N:hang:MS     it stands still for so long
//   RANK:PLACE:N:fail        what it is about to do fails (write, journal, connect)
//   RANK:PLACE:N:corrupt     a byte of what it sends is changed (message)
enum class Fault { kNone, kKill, kHang, kFail, kCorrupt };

struct PlannedFault {
  int rank = 0;
  std::string place;
  std::int64_t visit = 1;
  Fault fault = Fault::kNone;
  std::int64_t hang_ms = 0;

  bool operator==(const PlannedFault&) const = default;
};

// Throws an input Error that shows the entry which cannot be read.
std::vector<PlannedFault> parse_faults(std::string_view text);

// To be called where a fault may be planned, by any thread. Kills and hangs happen inside; returned
// is kFail or kCorrupt for the caller to act upon, else kNone. Costs a branch where the environment
// plans none.
Fault fault_point(std::string_view place);

}  // namespace rollcall
