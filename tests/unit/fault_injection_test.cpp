// SPDX-License-Identifier: Apache-2.0
#include "comms/fault_injection.h"

#include <gtest/gtest.h>

#include "comms/error.h"

namespace rollcall {
namespace {

TEST(FaultPlan, IsReadEntryByEntry) {
  EXPECT_EQ(parse_faults("2:delivery:3:kill,0:write:7:fail,1:turn:5:hang:3000,1:message:1:corrupt"),
            (std::vector<PlannedFault>{{2, "delivery", 3, Fault::kKill, 0},
                                       {0, "write", 7, Fault::kFail, 0},
                                       {1, "turn", 5, Fault::kHang, 3000},
                                       {1, "message", 1, Fault::kCorrupt, 0}}));
  EXPECT_TRUE(parse_faults("").empty());
}

TEST(FaultPlan, RefusesWhatItCannotRead) {
  for (const char* text : {"x", "1:turn:5", "1:turn:0:kill", "-1:turn:1:kill", "1::1:kill", ",",
                           "1:turn:1:explode", "1:turn:1:hang", "1:turn:1:kill:5", "1:turn:1:kill,",
                           "1:turn:1:hang:x", "1:turn:1:hang:1:1"})
    EXPECT_THROW(parse_faults(text), Error) << text;
}

// The plan is of a rank's environment; here is none.
TEST(FaultPoint, DoesNothingWithoutAPlan) { EXPECT_EQ(fault_point("turn"), Fault::kNone); }

}  // namespace
}  // namespace rollcall
