// SPDX-License-Identifier: Apache-2.0
#include "comms/launcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "comms/silence_clock.h"

namespace rollcall {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::string command(
    const LaunchSite& site, bool (*is_set)(const char*) = [](const char*) { return false; }) {
  const std::vector<std::string> arguments{"train", "a b.yaml"};
  std::string joined;
  for (const auto& word : mpirun_command(site, 3, "/bin/rollcall", arguments, is_set)) {
    joined += word + "|";
  }
  return joined;
}

TEST(Launcher, LetsWorkersDieOnOneHost) {
  EXPECT_EQ(command({.root = false, .single_host = true, .shared_memory_copies = true}),
            "mpirun|--oversubscribe|--bind-to|none|--enable-recovery|--mca|pml|ob1|--mca|btl|"
            "self,vader|-n|3|/bin/rollcall|train|a b.yaml|");
}

TEST(Launcher, KeepsMpirunsFilesWhereTheyAreRemoved) {
  LaunchSite site;
  EXPECT_THAT(command(site), Not(HasSubstr("tmpdir")));
  site.scratch = "/tmp/here";
  EXPECT_THAT(command(site), HasSubstr("|--mca|orte_tmpdir_base|/tmp/here|"));
}

TEST(Launcher, AsksForRootOnlyAsRoot) {
  EXPECT_THAT(command({.root = true}), HasSubstr("|--allow-run-as-root|"));
  EXPECT_THAT(command({.root = false}), Not(HasSubstr("root")));
}

TEST(Launcher, LeavesTransportsAloneOnSeveralHosts) {
  EXPECT_THAT(command({.single_host = false}), Not(HasSubstr("btl")));
}

TEST(Launcher, TellsOtherHostsWhereTheLifelineIs) {
  EXPECT_THAT(command({.single_host = false}), HasSubstr("|-x|ROLLCALL_LIFELINE|"));
}

TEST(Launcher, TakesItsOwnVariablesToOtherHosts) {
  ::setenv("SLURM_JOB_ID", "7", 1);
  ::setenv("ROLLCALL_KERNELS", "avx2", 1);
  const std::string on_several = command(inspect_launch_site());
  ::unsetenv("SLURM_JOB_ID");
  EXPECT_THAT(on_several, HasSubstr("|-x|ROLLCALL_KERNELS|"));
  EXPECT_THAT(command(inspect_launch_site()), Not(HasSubstr("ROLLCALL_KERNELS")));
  ::unsetenv("ROLLCALL_KERNELS");
}

TEST(Launcher, AvoidsCopiesThatTheKernelForbids) {
  EXPECT_THAT(command({.shared_memory_copies = false}),
              HasSubstr("--mca|btl_vader_single_copy_mechanism|none|"));
}

TEST(Launcher, KeepsWhatTheUserSet) {
  const auto user_set_btl = [](const char* name) { return std::strcmp(name, "OMPI_MCA_btl") == 0; };
  EXPECT_THAT(command({}, user_set_btl), AllOf(HasSubstr("ob1"), Not(HasSubstr("self,vader"))));
}

TEST(LineFilter, DropsOpenMpiNoiseAndKeepsTheRest) {
  LineFilter filter;
  EXPECT_EQ(filter.add("one\ntw"), "one\n");
  EXPECT_EQ(filter.add("o\n[vm:1] PMIX ERROR: BAD-PARAM in file x.c at line 1\nmpirun: Forwarding "
                       "signal 10 to job\n\nth"),
            "two\n\n");
  EXPECT_EQ(filter.flush(), "th");
  EXPECT_EQ(filter.flush(), "");
}

TEST(Launcher, DoesNotTakeAnyParentForMpirun) { EXPECT_FALSE(end_parent_mpirun()); }

TEST(SilenceClock, DoesNotBlameAPeerForOurOwnPause) {
  using std::chrono::milliseconds;
  const SilenceClock::Clock::time_point start{};
  SilenceClock clock(milliseconds(100), start);
  clock.listen(start + milliseconds(5000));
  EXPECT_FALSE(clock.silent_for(milliseconds(1000), start + milliseconds(5000)));
  clock.listen(start + milliseconds(5050));
  EXPECT_FALSE(clock.silent_for(milliseconds(1000), start + milliseconds(5050)));
  clock.listen(start + milliseconds(5150));
  EXPECT_TRUE(clock.silent_for(milliseconds(1000), start + milliseconds(5150)));
  clock.heard(start + milliseconds(5150));
  EXPECT_FALSE(clock.silent_for(milliseconds(1000), start + milliseconds(5151)));
}

}  // namespace
}  // namespace rollcall
