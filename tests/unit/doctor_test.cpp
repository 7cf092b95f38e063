// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>

#include "comms/error.h"
#include "comms/launch_ping.h"
#include "rollcall/doctor/bounded.h"
#include "rollcall/doctor/checks.h"

namespace rollcall {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Finding, ShowsItsRemedyOnlyWhereSomethingIsToBeDone) {
  EXPECT_EQ(finding_text({"GPU", Health::kMissing, "none", "buy one"}),
            "GPU              missing  none\n                            -> buy one\n");
  EXPECT_EQ(finding_text({"GPU", Health::kOk, "2", "buy one"}), "GPU              ok       2\n");
}

TEST(Finding, SurvivesJson) {
  const auto back = parse_finding(finding_json({"a", Health::kWarning, "b\n\"c\"\xff", "d"}));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->what + "|" + back->detail + "|" + back->remedy, "a|b\n\"c\"\xEF\xBF\xBD|d");
  EXPECT_EQ(back->health, Health::kWarning);
  for (const char* other : {"", "[]", "{}", "{\"state\":\"fine\"}", "{\"state\":"})
    EXPECT_FALSE(parse_finding(other)) << other;
}

TEST(Check, ThatHangsIsAFindingAfterWhatItFound) {
  const auto begin = std::chrono::steady_clock::now();
  const BoundedEnd end = run_bounded(milliseconds(100), [](int out) {
    return ::write(out, "said", 4) == 4 ? static_cast<int>(::sleep(60)) : 1;
  });
  EXPECT_FALSE(end.in_time);
  EXPECT_EQ(end.text, "said");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(10));
}

TEST(Check, ThatCrashesOrThrowsIsAFinding) {
  const auto crashed = run_check({"x", seconds(10), []() -> std::vector<Finding> { ::_exit(9); }});
  ASSERT_EQ(crashed.size(), 1U);
  EXPECT_EQ(crashed[0].health, Health::kFailed);
  const auto thrown =
      run_check({"x", seconds(10), []() -> std::vector<Finding> { throw Error("no", "do"); }});
  ASSERT_EQ(thrown.size(), 1U);
  EXPECT_EQ(thrown[0].detail + thrown[0].remedy, "nodo");
}

TEST(Program, IsRunOrMissing) {
  EXPECT_EQ(run_program(seconds(10), {"sh", "-c", "echo a; echo b >&2; exit 3"}).text, "a\nb\n");
  EXPECT_EQ(run_program(seconds(10), {"sh", "-c", "exit 3"}).code, 3);
  EXPECT_EQ(run_program(seconds(10), {"no-such-program-at-all"}).code, 127);
}

TEST(Launch, IsReadFromWhatOpenMpiSays) {
  EXPECT_EQ(transports_in("[a:1] mca: bml: Using vader btl for send to [[1,1],0] on node a\n"
                          "[a:1] mca: bml: Using self btl for send to [[1,1],1] on node a\n"
                          "[a:2] mca: bml: Using vader btl for send to [[1,1],1] on node a\n"),
            "self, vader");
  EXPECT_EQ(transports_in("nothing"), "unknown");
  const auto ping = find_launch_ping("noise\nrollcall-ping {\"ranks\":2,\"hosts\":\"a\"}\nmore");
  ASSERT_TRUE(ping);
  EXPECT_EQ(ping->ranks, 2);
  EXPECT_FALSE(find_launch_ping("rollcall-ping {\"ra"));
}

TEST(Requeue, IsReadFromJobAndConfig) {
  EXPECT_EQ(requeue_in("JobId=7 Requeue=1 Restarts=0"), true);
  EXPECT_EQ(requeue_in("JobId=7 Requeue=0 Restarts=0"), false);
  EXPECT_EQ(requeue_in("JobRequeue              = 1\n"), true);
  EXPECT_EQ(requeue_in("JobId=7"), std::nullopt);
  EXPECT_EQ(requeue_in("Requeue="), std::nullopt);
}

TEST(FileSystems, AreKnownByTheirNumbers) {
  EXPECT_EQ(file_system_of(0xEF53).name, "ext4");
  EXPECT_TRUE(file_system_of(0xEF53).advice.empty());
  EXPECT_FALSE(file_system_of(0x6969).advice.empty());
  // The type is signed where long has 32 bits, and statfs() may extend the sign.
  EXPECT_EQ(file_system_of(static_cast<std::int32_t>(0xFF534D42)).name, "CIFS");
  EXPECT_EQ(file_system_of(0x12345).name, "a file system of type 0x12345");
}

TEST(Needs, FollowFromTheRunFile) {
  RunConfig config;
  config.tools.resize(2);
  config.tools[0].max_concurrency = config.tools[1].max_concurrency = 100;
  config.grader.max_concurrency = 50;
  config.cluster.rollouts_per_worker = 64;
  EXPECT_EQ(open_files_needed(config), 250 + 128);
  config.cluster.rollouts_per_worker = 4;
  config.rollout.max_tool_calls = 3;
  EXPECT_EQ(open_files_needed(config), 12 + 128);
  config.checkpoint.keep = 3;
  EXPECT_EQ(disk_needed(config, 1000), 4 * 12000 + 4000);
  config.model.train = "lora";
  EXPECT_EQ(disk_needed(config, 1000), 4000);
}

}  // namespace
}  // namespace rollcall
