// SPDX-License-Identifier: Apache-2.0
#include "trainer/result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "comms/error.h"
#include "tests/unit/journal_samples.h"

namespace rollcall {
namespace {

RunResult sample_result() {
  return {
      .status = RunStatus::kStopped,
      .exit_code = 3,
      .step = 120,
      .before = Evaluation{.pass_at_1 = 0.125,
                           .low_95 = 0.1,
                           .high_95 = 0.2,
                           .tasks = 64,
                           .samples = 8,
                           .graded_tasks = 63,
                           .faults = 9,
                           .masked = 2},
      .after =
          Evaluation{.pass_at_1 = 0.5, .low_95 = 0.4, .high_95 = 0.6, .tasks = 64, .samples = 8},
      .checkpoint = "runs/ledger/checkpoints/step-000120",
      .export_dir = "",
      .adapter_dir = "",
      .report = "runs/ledger/report.html",
      .message = "stopped by SIGTERM; „später“"};
}

TEST(Result, ReadsBackWhatItWrote) {
  const TempFolder folder;
  write_result(folder.path(), sample_result());
  const RunResult read = read_result(folder.path()).value();
  EXPECT_EQ(read.status, RunStatus::kStopped);
  EXPECT_EQ(read.exit_code, 3);
  EXPECT_EQ(read.step, 120);
  EXPECT_EQ(read.before->pass_at_1, 0.125);
  EXPECT_EQ(read.before->graded_tasks, 63);
  EXPECT_EQ(read.before->faults, 9);
  EXPECT_EQ(read.before->masked, 2);
  EXPECT_EQ(read.after->high_95, 0.6);
  EXPECT_EQ(read.after->samples, 8);
  EXPECT_EQ(read.checkpoint, sample_result().checkpoint);
  EXPECT_EQ(read.export_dir, "");
  EXPECT_EQ(read.message, sample_result().message);
}

TEST(Result, IsAbsentWithoutAFileAndWithoutEvaluations) {
  const TempFolder folder;
  EXPECT_FALSE(read_result(folder.path()).has_value());
  write_result(folder.path(), RunResult{});
  EXPECT_FALSE(read_result(folder.path())->before.has_value());
}

TEST(Result, KeepsThatAnEvaluationHasNoRate) {
  const TempFolder folder;
  RunResult result;
  result.before = Evaluation{.tasks = 4, .samples = 1, .masked = 4};
  write_result(folder.path(), result);
  const Evaluation e = read_result(folder.path())->before.value();
  EXPECT_TRUE(std::isnan(e.pass_at_1));
  EXPECT_EQ(e.tasks, 4);
  EXPECT_THAT(evaluation_json(e), testing::HasSubstr(R"("pass_at_1":null)"));
}

TEST(Result, IsNothingInAFileCutShortAtEveryByteOrOfOtherContents) {
  const TempFolder folder;
  const std::filesystem::path file = folder.path() / "result.json";
  write_result(folder.path(), sample_result());
  std::ifstream in(file);
  const std::string whole(std::istreambuf_iterator<char>(in), {});
  for (std::size_t length = 0; length + 2 < whole.size(); ++length) {
    std::ofstream(file) << whole.substr(0, length);
    EXPECT_FALSE(read_result(folder.path()).has_value()) << length;
  }
  for (const char* garbage : {"[]", "7", "{}", R"({"status": "asleep"})", "\xff\xfe"}) {
    std::ofstream(file) << garbage;
    EXPECT_FALSE(read_result(folder.path()).has_value()) << garbage;
    EXPECT_NO_THROW(mark_result_running(folder.path())) << garbage;
  }
}

TEST(Result, IsReadOrNothingInAFileChangedAtEveryByte) {
  const TempFolder folder;
  const std::filesystem::path file = folder.path() / "result.json";
  write_result(folder.path(), sample_result());
  std::ifstream in(file);
  const std::string whole(std::istreambuf_iterator<char>(in), {});
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string changed = whole;
    changed[at] ^= 0x10;
    std::ofstream(file) << changed;
    EXPECT_NO_THROW(read_result(folder.path())) << at;
  }
}

TEST(Result, SaysWhyItCannotWrite) {
  EXPECT_THROW(write_result("/nonexistent", RunResult{}), Error);
}

}  // namespace
}  // namespace rollcall
