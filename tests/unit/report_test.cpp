// SPDX-License-Identifier: Apache-2.0
#include "trainer/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "rollcall/inspect_command.h"
#include "tests/unit/journal_samples.h"
#include "tests/unit/synthetic_run.h"
#include "trainer/chart.h"
#include "trainer/run_facts.h"

namespace rollcall {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

RolloutFacts rollout(std::int64_t step, std::int64_t group, double reward) {
  RolloutFacts facts;
  facts.assignment.step = step;
  facts.assignment.group = group;
  facts.assignment.task_row = group;
  facts.reward = facts.score = reward;
  facts.passed = reward >= 1;
  return facts;
}

std::string report_of(const std::filesystem::path& run_dir) {
  write_report(run_dir);
  return read_file(run_dir / "report.html");
}

TEST(RunFacts, SortsGroupsByOutcomeAndLeavesFaultsOut) {
  RunFacts run;
  run.train = {rollout(4, 0, 0), rollout(4, 0, 1), rollout(4, 1, 1), rollout(4, 1, 1),
               rollout(4, 2, 0), rollout(4, 2, 0), rollout(4, 2, 1)};
  run.train.back().fault = FaultReason::kToolFault;
  const std::vector<StepFacts> steps = steps_of(run);
  ASSERT_EQ(steps.size(), 1);
  EXPECT_EQ(steps[0].step, 4);
  EXPECT_EQ(steps[0].groups_signal, 1);
  EXPECT_EQ(steps[0].groups_all_pass, 1);
  EXPECT_EQ(steps[0].groups_all_fail, 1);
  EXPECT_EQ(steps[0].faults, 1);
  EXPECT_DOUBLE_EQ(steps[0].pass_rate, 0.5);
  EXPECT_DOUBLE_EQ(steps[0].reward_mean, 0.5);
}

TEST(RunFacts, HasNoMeansForAStepWithoutAGrade) {
  RunFacts run;
  run.train = {rollout(4, 0, 0), rollout(4, 0, 1)};
  run.train[0].fault = FaultReason::kMasked;
  run.train[1].fault = FaultReason::kToolFault;
  const StepFacts step = steps_of(run).at(0);
  EXPECT_EQ(step.faults, 1);
  EXPECT_EQ(step.masked, 1);
  EXPECT_TRUE(std::isnan(step.reward_mean) && std::isnan(step.pass_rate));
}

TEST(RunFacts, ComparesEvaluationsTaskByTask) {
  RunFacts run;
  run.valid = {rollout(0, 1, 0), rollout(0, 1, 1), rollout(0, 2, 0), rollout(0, 3, 1),
               rollout(9, 1, 1), rollout(9, 2, 1), rollout(9, 4, 0)};
  const std::vector<EvalFacts> evaluations = evaluations_of(run);
  ASSERT_EQ(evaluations.size(), 2);
  EXPECT_DOUBLE_EQ(evaluations[0].pass_at_1.mean, 0.5);  // of 0.5, 0, 1
  EXPECT_LE(evaluations[0].pass_at_1.high, 1);
  const Interval change = paired_change(evaluations[0], evaluations[1]);
  EXPECT_EQ(change.tasks, 2);
  EXPECT_DOUBLE_EQ(change.mean, 0.75);  // of +0.5 and +1
  EXPECT_NEAR(change.high - change.mean, 1.96 * 0.25, 1e-12);
}

TEST(Percentile, TakesTheNearestRank) {
  EXPECT_EQ(percentile({}, 0.5), 0);
  EXPECT_EQ(percentile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(percentile({3, 1, 2}, 1), 3);
}

TEST(Chart, EscapesItsTexts) {
  EXPECT_EQ(escape_html("<a href=\"x\">'&\x01\n"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\xef\xbf\xbd\n");
}

TEST(Chart, FormatsValuesForAReader) {
  EXPECT_EQ(format_value(0.5, ChartUnit::kPercent), "50 %");
  EXPECT_EQ(format_value(0.0123, ChartUnit::kPercent), "1.2 %");
  EXPECT_EQ(format_value(0.25, ChartUnit::kSeconds), "250 ms");
  EXPECT_EQ(format_value(12345, ChartUnit::kNumber), "12.3k");
  EXPECT_EQ(format_value(std::nan(""), ChartUnit::kNumber), "–");
}

TEST(Chart, DrawsOnePointAndSurvivesNone) {
  EXPECT_EQ(line_chart({.title = "x", .series = {{.name = "a", .color = "c1", .points = {}}}}), "");
  const Chart one{.title = "x",
                  .series = {{.name = "a", .color = "c1", .points = {{.x = 3, .y = 5}}}}};
  EXPECT_THAT(line_chart(one),
              AllOf(HasSubstr("<circle"), Not(HasSubstr("nan")), Not(HasSubstr("inf"))));
  EXPECT_THAT(stacked_chart(one), AllOf(HasSubstr("<rect"), Not(HasSubstr("nan"))));
}

TEST(Chart, LeavesOutWhatIsNotFinite) {
  const Chart chart{
      .title = "x",
      .series = {
          {.name = "a", .color = "c1", .points = {{.x = 0, .y = 1}, {.x = 1, .y = std::nan("")}}}}};
  EXPECT_THAT(line_chart(chart), Not(HasSubstr("nan")));
}

TEST(Report, TellsTheStoryOfARun) {
  const TempFolder folder;
  write_synthetic_run(folder.path(),
                      {.steps = 12, .groups = 4, .members = 4, .tasks = 8, .samples = 2});
  const std::string html = report_of(folder.path());
  EXPECT_THAT(html, AllOf(HasSubstr("<h1>ledger</h1>"), HasSubstr("Held-out pass@1"),
                          HasSubstr("Groups by outcome"), HasSubstr("search_orders"),
                          HasSubstr("Before, step 0"), HasSubstr("After, step 12")));
  EXPECT_THAT(html, AllOf(Not(HasSubstr("<script>alert")), HasSubstr("&lt;b&gt;chair"),
                          HasSubstr("${TOOL_KEY}"), Not(HasSubstr("nan")),
                          Not(HasSubstr("http://")), Not(HasSubstr("https://"))));
}

TEST(Report, ShowsACriticWhereThereIsOne) {
  const TempFolder folder;
  write_synthetic_run(folder.path(), {.steps = 2});
  EXPECT_THAT(report_of(folder.path()),
              AllOf(Not(HasSubstr("Critic")), HasSubstr("whose rewards differ")));
  MetricsLog(folder.path(), 2).append(2, {{metric::kExplainedVariance, 0.5}});
  EXPECT_THAT(report_of(folder.path()), AllOf(HasSubstr("Critic: explained variance"),
                                              Not(HasSubstr("whose rewards differ"))));
}

TEST(Report, TellsInWhichStepsAnAlarmWentOn) {
  const TempFolder folder;
  write_synthetic_run(folder.path(), {.steps = 2});
  EXPECT_THAT(report_of(folder.path()), Not(HasSubstr("Alarm")));
  MetricsLog(folder.path(), 2).append(3, {{"alarm.entropy", 1}});
  MetricsLog(folder.path(), 3).append(5, {{"alarm.entropy", 1}});
  EXPECT_THAT(report_of(folder.path()), HasSubstr("Alarm entropy: from step 3 to 5, 2 times"));
}

TEST(Report, IsTheSameEachTime) {
  const TempFolder folder;
  write_synthetic_run(folder.path(),
                      {.steps = 3, .groups = 2, .members = 2, .tasks = 2, .samples = 1});
  EXPECT_EQ(report_of(folder.path()), report_of(folder.path()));
}

TEST(Report, WorksOnAnEmptyRunAndOnOneWithoutEvaluations) {
  const TempFolder folder;
  write_result(folder.path(), RunResult{});
  EXPECT_THAT(report_of(folder.path()), HasSubstr("No held-out evaluation"));
  write_synthetic_run(folder.path(), {.steps = 1, .groups = 1, .members = 2, .tasks = 0});
  EXPECT_THAT(report_of(folder.path()), HasSubstr("Mean reward"));
}

TEST(Report, IsNotWrittenIntoAFolderThatIsNoRun) {
  const TempFolder folder;
  std::ofstream(folder.path() / "config.yaml") << "a: 1\n";  // many a folder has one
  for (const auto& dir : {folder.path(), folder.path() / "absent"}) {
    try {
      write_report(dir);
      FAIL() << dir;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
      EXPECT_THAT(error.what(), HasSubstr("is no run's folder"));
    }
    EXPECT_FALSE(std::filesystem::exists(dir / "report.html"));
  }
}

TEST(Inspect, SummarisesARun) {
  const TempFolder folder;
  write_synthetic_run(folder.path(),
                      {.steps = 2, .groups = 2, .members = 2, .tasks = 2, .samples = 1});
  std::ostringstream out;
  EXPECT_EQ(run_inspect(folder.path(), std::nullopt, false, out), 0);
  EXPECT_THAT(out.str(), AllOf(HasSubstr("8 training"), HasSubstr("steps     0 to 1"),
                               HasSubstr("held-out  step 2"), HasSubstr("get_invoice")));
}

TEST(Inspect, ShowsOneTrajectoryInFull) {
  const TempFolder folder;
  { Journal(folder.path() / "journal" / "learner-0.h5", "{}").append(sample_trajectory(0)); }
  std::ostringstream out;
  EXPECT_EQ(run_inspect(folder.path(), 0, false, out), 0);
  EXPECT_THAT(out.str(), AllOf(HasSubstr(sample_trajectory(0).trace_id),
                               HasSubstr("Σ = 12 €, row 0"), HasSubstr("sub-reward täx 0.333333")));
  for (const char c : out.str())
    EXPECT_TRUE(c == '\n' || c == '\t' || static_cast<unsigned char>(c) >= 0x20);
}

TEST(Inspect, RefusesARunWithoutJournalAndARowThatIsNotThere) {
  const TempFolder folder;
  std::ostringstream out;
  EXPECT_THROW(run_inspect(folder.path(), std::nullopt, false, out), Error);
  { Journal(folder.path() / "journal" / "learner-0.h5", "{}").append(sample_trajectory(0)); }
  EXPECT_THROW(run_inspect(folder.path(), 1, false, out), Error);
}

}  // namespace
}  // namespace rollcall
