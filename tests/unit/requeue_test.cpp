// SPDX-License-Identifier: Apache-2.0
#include "rollcall/requeue.h"

#include <gtest/gtest.h>

#include "temp_folder.h"
#include "trainer/result.h"

namespace rollcall {
namespace {

JobEnd ended(int code, StopCause asked) { return {code, {}, false, asked}; }

TEST(NextJob, IsTheSameWhereTheClockOrADeathStoppedTheRun) {
  EXPECT_EQ(next_job(ended(3, StopCause::kDeadline), true), NextJob::kSame);
  EXPECT_EQ(next_job(ended(3, StopCause::kNone), true), NextJob::kSame);
}

TEST(NextJob, IsNoneWhereAPersonStoppedTheRunOrHasToDoSomething) {
  EXPECT_EQ(next_job(ended(3, StopCause::kPerson), true), NextJob::kNone);
  for (const int code : {0, 1, 2, 4, 5})
    for (const auto asked : {StopCause::kNone, StopCause::kDeadline})
      EXPECT_EQ(next_job(ended(code, asked), true), NextJob::kNone) << code;
}

TEST(NextJob, IsPointlessWhereTheRunDidNotMove) {
  EXPECT_EQ(next_job(ended(3, StopCause::kDeadline), false), NextJob::kPointless);
  EXPECT_EQ(next_job(ended(3, StopCause::kNone), false), NextJob::kPointless);
}

TEST(Headway, IsStepsAndRollouts) {
  const TempFolder run;
  EXPECT_EQ(headway(run.path()), (Headway{0, 0}));
  spit(run / "journal/learner-0.h5", "12345");
  EXPECT_EQ(headway(run.path()), (Headway{0, 5}));
  RunResult result;
  result.step = 4;
  write_result(run.path(), result);
  EXPECT_EQ(headway(run.path()), (Headway{4, 5}));
}

}  // namespace
}  // namespace rollcall
