// SPDX-License-Identifier: Apache-2.0
#include "rollcall/requeue.h"

#include <gtest/gtest.h>

#include "journal_samples.h"
#include "temp_folder.h"
#include "trainer/journal.h"
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

// The size of the file tells nothing: it grows by many rows at once.
TEST(Headway, IsStepsAndThenRollouts) {
  const TempFolder run;
  EXPECT_EQ(headway(run.path()), (Headway{0, 0}));
  std::filesystem::create_directory(run / "journal");
  {
    Journal journal(run / "journal/learner-0.h5", "{}");
    for (int row = 0; row < 7; ++row) journal.append(sample_trajectory(row));
    journal.commit();
  }
  EXPECT_EQ(headway(run.path()), (Headway{0, 7}));
  RunResult result;
  result.step = 4;
  write_result(run.path(), result);
  EXPECT_EQ(headway(run.path()), (Headway{4, 7}));
  EXPECT_GT((Headway{4, 0}), (Headway{3, 9}));
}

TEST(Headway, IsNoRolloutsWhereTheJournalCannotBeRead) {
  const TempFolder run;
  spit(run / "journal/learner-0.h5", "12345");
  EXPECT_EQ(headway(run.path()), (Headway{0, 0}));
}

}  // namespace
}  // namespace rollcall
