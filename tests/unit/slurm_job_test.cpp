// SPDX-License-Identifier: Apache-2.0
#include "comms/slurm_job.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>

#include "comms/error.h"
#include "comms/stop_clock.h"
#include "temp_folder.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(SlurmDuration, IsReadInAllItsForms) {
  EXPECT_EQ(parse_slurm_duration("7"), seconds(7));
  EXPECT_EQ(parse_slurm_duration("0:59"), seconds(59));
  EXPECT_EQ(parse_slurm_duration("12:34:56"), seconds(45296));
  EXPECT_EQ(parse_slurm_duration("2-03:00:01"), seconds(183601));
  EXPECT_EQ(parse_slurm_duration("1-0"), seconds(86400));
}

TEST(SlurmDuration, OfAnythingElseIsUnknown) {
  for (const char* text : {"", "UNLIMITED", "NOT_SET", "INVALID", "1:", ":1", "1-", "-1", "1:-2",
                           "1:2x", "1 2", "99999999999999999999"})
    EXPECT_EQ(parse_slurm_duration(text), std::nullopt) << text;
}

// A folder of commands that stand for Slurm's, in front of PATH.
class FakeSlurm : public testing::Test {
 protected:
  FakeSlurm() {
    ::setenv("SLURM_JOB_ID", "17", 1);
    ::setenv("PATH", (folder_.path().string() + ":" + path_).c_str(), 1);
  }
  ~FakeSlurm() override {
    ::setenv("PATH", path_.c_str(), 1);
    ::unsetenv("SLURM_JOB_ID");
  }

  void command(const std::string& name, const std::string& script) {
    spit(folder_ / name, "#!/bin/sh\n" + script + "\n");
    std::filesystem::permissions(folder_ / name, std::filesystem::perms::owner_all);
  }

 private:
  const TempFolder folder_;
  const std::string path_ = std::getenv("PATH");
};

TEST_F(FakeSlurm, IsAskedForTheTimeLeft) {
  const auto job = SlurmJob::of_environment();
  command("squeue", R"([ "$*" = "--noheader --jobs=17 --format=%L" ] && echo "  1:00:05 ")");
  EXPECT_EQ(job->time_left(), seconds(3605));
  command("squeue", "echo UNLIMITED");
  EXPECT_EQ(job->time_left(), std::nullopt);
  command("squeue", "echo 5:00; exit 1");
  EXPECT_EQ(job->time_left(), std::nullopt);
}

TEST_F(FakeSlurm, IsAskedForOneJobOfAnArray) {
  ::setenv("SLURM_ARRAY_JOB_ID", "17", 1);
  ::setenv("SLURM_ARRAY_TASK_ID", "3", 1);
  const auto job = SlurmJob::of_environment();
  ::unsetenv("SLURM_ARRAY_JOB_ID");
  ::unsetenv("SLURM_ARRAY_TASK_ID");
  command("squeue", R"([ "$*" = "--noheader --jobs=17_3 --format=%L" ] && echo 5:00)");
  command("scontrol", R"([ "$*" = "requeue 17_3" ])");
  EXPECT_EQ(job->time_left(), seconds(300));
  job->requeue();
}

TEST_F(FakeSlurm, AnswersAThreadThatHasEverySignalBlocked) {
  const auto job = SlurmJob::of_environment();
  command("squeue", "sleep 0.2; kill -TERM $$ 2>/dev/null; echo 5:00");
  sigset_t all, former;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &former);
  EXPECT_EQ(job->time_left(), std::nullopt) << "the command can be ended by a signal";
  command("squeue", "sleep 0.2; echo 5:00");
  EXPECT_EQ(job->time_left(), seconds(300));
  ::pthread_sigmask(SIG_SETMASK, &former, nullptr);
}

TEST_F(FakeSlurm, SaysWhyItDoesNotRequeue) {
  const auto job = SlurmJob::of_environment();
  command("scontrol", R"([ "$*" = "requeue 17" ])");
  job->requeue();
  command("scontrol", "echo 'Requested operation is presently disabled' >&2; exit 1");
  try {
    job->requeue();
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("presently disabled"), std::string::npos);
  }
}

TEST_F(FakeSlurm, IsThereOnlyWithANumberOfAJob) {
  for (const char* id : {"", "x", "1; rm -rf /", "-1"}) {
    ::setenv("SLURM_JOB_ID", id, 1);
    EXPECT_FALSE(SlurmJob::of_environment()) << id;
  }
  ::unsetenv("SLURM_JOB_ID");
  EXPECT_FALSE(SlurmJob::of_environment());
}

bool is_due_within(const StopClock& clock, milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (!clock.due() && std::chrono::steady_clock::now() < until) ::usleep(1000);
  return clock.due();
}

TEST(StopClock, IsDueBeforeTheEnd) {
  const StopClock late([] { return seconds(10); }, seconds(10));
  EXPECT_TRUE(is_due_within(late, seconds(5)));
  const StopClock early([] { return seconds(100); }, seconds(10));
  EXPECT_FALSE(is_due_within(early, milliseconds(50)));
}

TEST(StopClock, FollowsALimitThatChanges) {
  std::atomic<int> left{1000};
  const StopClock clock([&] { return seconds(left); }, seconds(10), milliseconds(1));
  EXPECT_FALSE(is_due_within(clock, milliseconds(50)));
  left = 9;
  EXPECT_TRUE(is_due_within(clock, seconds(5)));
}

TEST(StopClock, KeepsWhatItKnewWhereNobodyAnswers) {
  std::atomic<int> asked{0};
  const StopClock clock(
      [&]() -> std::optional<seconds> {
        return asked++ == 0 ? std::optional(seconds(1)) : std::nullopt;
      },
      milliseconds(900), milliseconds(1));
  EXPECT_TRUE(is_due_within(clock, seconds(5)));
  EXPECT_GT(asked, 1);
}

TEST(StopClock, IsNeverDueWithoutALimit) {
  const StopClock clock([] { return std::nullopt; }, seconds(10), milliseconds(1));
  EXPECT_FALSE(is_due_within(clock, milliseconds(50)));
}

}  // namespace
}  // namespace rollcall
