// SPDX-License-Identifier: Apache-2.0
#include "trainer/audit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "comms/durable_file.h"
#include "tests/unit/synthetic_run.h"
#include "tests/unit/temp_folder.h"
#include "trainer/report.h"

namespace rollcall {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

ToolEvent call(const std::string& name, const std::string& output = "ok") {
  ToolEvent event;
  event.name = name;
  event.output = output;
  return event;
}

AuditRollout audited(Trajectory t) { return audit_rollout(t, facts_of(t)); }

Trajectory answering(std::int64_t step, std::int64_t group, double reward,
                     const std::string& answer) {
  Trajectory t;
  t.assignment.step = step;
  t.assignment.group = t.assignment.task_row = group;
  t.end = EndReason::kFinished;
  t.final_text = answer;
  t.grade.score = t.grade.reward = reward;
  t.grade.passed = reward >= 1;
  return t;
}

TEST(AuditRollout, NamesABehaviourByCallsEndAndShape) {
  Trajectory t = answering(0, 0, 1, " 412.5 ");
  t.tool_events = {call("get"), call("get"), call("get"), call(""), call("pay"), call("get")};
  EXPECT_EQ(audited(t).behaviour, "get+ (unreadable) pay get | finished | number");
  t.tool_events.clear();
  t.final_text = R"({"a": [1]})";
  EXPECT_EQ(audited(t).behaviour, "no tools | finished | JSON");
  t.final_text = std::string(100, 'x');
  t.end = EndReason::kMaxTurns;
  EXPECT_EQ(audited(t).behaviour, "no tools | max_turns | long");
  t.final_text = " \n";
  EXPECT_EQ(audited(t).behaviour, "no tools | max_turns | no answer");
  EXPECT_FALSE(audited(t).without_tools) << "nothing was answered";
}

TEST(AuditRollout, SeesAnAnswerThatAToolGave) {
  Trajectory t = answering(0, 0, 1, "Invoice A-1012 totals\n 412.50 EUR");
  EXPECT_TRUE(audited(t).without_tools);
  t.tool_events = {call("get", R"({"text": "invoice a-1012  totals 412.50 EUR, due soon"})")};
  EXPECT_TRUE(audited(t).parroted) << "blanks and case aside";
  t.tool_events = {call("get", "Invoice A-1012 totals 412.50")};
  EXPECT_TRUE(audited(t).parroted) << "most of the answer";
  t.tool_events = {call("get", "412.50 EUR")};
  EXPECT_FALSE(audited(t).parroted) << "a part that an answer needs";
  t.final_text = "412.50 EUR";
  EXPECT_FALSE(audited(t).parroted) << "too short to tell";
}

TEST(AuditRollout, MeasuresRepetition) {
  EXPECT_EQ(audited(answering(0, 0, 1, "a b c d e")).repetition, 0);
  EXPECT_EQ(audited(answering(0, 0, 1, "a b c")).repetition, 0);
  // Six runs of four words: a b c d, b c d a, c d a b, d a b c, a b c d again, b c d a again.
  EXPECT_DOUBLE_EQ(audited(answering(0, 0, 1, "a b c d a b c d a")).repetition, 2.0 / 6);
}

TEST(Audit, ShowsABehaviourOnSeveralTasks) {
  std::vector<AuditRollout> all;
  for (const std::int64_t task : {1, 1, 1, 1, 2}) {
    Trajectory t = answering(0, task, 1, "PASS");
    all.push_back(audited(t));
  }
  const Audit audit = audit_of(all);
  ASSERT_EQ(audit.clusters.size(), 1U);
  std::vector<std::int64_t> tasks;
  for (const AuditRollout* r : audit.clusters[0].examples)
    tasks.push_back(r->facts.assignment.task_row);
  EXPECT_THAT(tasks, testing::ElementsAre(1, 2, 1));
}

TEST(Audit, PutsAWayToPassThatEmergesFirst) {
  std::vector<AuditRollout> all;
  for (std::int64_t step = 0; step < 10; ++step)
    for (std::int64_t i = 0; i < 4; ++i) {
      Trajectory honest = answering(step, 10 * step + i, i == 0 ? 1 : 0, "paid after a look");
      honest.tool_events = {call("get")};
      Trajectory trick = answering(step, 10 * step + i, 1, "PASS");
      all.push_back(audited(step < 7 || i == 0 ? honest : trick));
    }
  const Audit audit = audit_of(all);
  EXPECT_EQ(audit.steps, 10);
  EXPECT_EQ(audit.last_begin, 8);
  ASSERT_EQ(audit.clusters.size(), 2U);
  EXPECT_EQ(audit.clusters[0].behaviour, "no tools | finished | short");
  EXPECT_DOUBLE_EQ(audit.clusters[0].share_first, 0);
  EXPECT_DOUBLE_EQ(audit.clusters[0].share_last, 0.75);
  EXPECT_EQ(audit.clusters[0].rollouts, 9);
  EXPECT_EQ(audit.clusters[0].lately, 6);
  EXPECT_EQ(audit.clusters[0].examples.size(), 3U);
  EXPECT_DOUBLE_EQ(audit.clusters[1].growth(), -0.75);
  ASSERT_EQ(audit.repeated.size(), 2U) << "given to three tasks and more";
  EXPECT_EQ(audit.repeated[0].answer, "paid after a look");
  EXPECT_EQ(audit.repeated[1].tasks, 9);
  EXPECT_EQ(audit.repeated[1].pass_rate, 1);
}

TEST(Audit, ListsTheOnlyPassOfALargeGroup) {
  std::vector<AuditRollout> all;
  const auto group = [&](std::int64_t step, std::int64_t id, int members, int passes) {
    for (int i = 0; i < members; ++i)
      all.push_back(audited(answering(step, id, i < passes ? 1 : 0, std::to_string(id))));
  };
  group(0, 0, 8, 1);
  group(0, 1, 8, 2);
  group(0, 2, 7, 1);
  group(3, 3, 9, 1);
  const Audit audit = audit_of(all);
  ASSERT_EQ(audit.singletons.size(), 2U);
  EXPECT_EQ(audit.singletons[0]->answer, "3") << "the newest first";
  EXPECT_EQ(audit.singletons[1]->answer, "0");
}

TEST(Audit, CorrelatesInsideGroups) {
  std::vector<AuditRollout> all;
  for (std::int64_t group = 0; group < 2; ++group)
    for (std::int64_t i = 0; i < 3; ++i) {
      // Longer answers earn more in each group; the group of long answers earns less.
      all.push_back(audited(answering(0, group, static_cast<double>(i) - 10.0 * group, "a")));
      all.back().facts.tokens = i + 10 * group;
    }
  const Audit audit = audit_of(all);
  EXPECT_NEAR(audit.length.inside_groups, 1, 1e-12);
  EXPECT_LT(audit.length.overall, -0.9);
  EXPECT_TRUE(std::isnan(audit.calls.overall)) << "nobody called anything";
}

TEST(Audit, CountsFlagsAndClosedGatesOfWhatIsMaskedToo) {
  Trajectory masked = answering(2, 0, 1, "x");
  masked.fault = FaultReason::kMasked;
  masked.grade.flags = {kUnconfirmedFlag};
  masked.grade.gates = {{"format", false}, {"safe", true}};
  std::vector<AuditRollout> all{audited(masked)};
  Audit audit = audit_of(all);
  EXPECT_EQ(audit.flags.at(kUnconfirmedFlag).at(2), 1);
  EXPECT_EQ(audit.gates.size(), 1U);
  EXPECT_TRUE(audit.clusters.empty());
  EXPECT_TRUE(audit_of({}).clusters.empty());
}

TEST(AuditPage, ShowsARunAndEscapesWhatAgentsWrote) {
  const TempFolder dir;
  write_synthetic_run(dir.path(),
                      {.steps = 12, .groups = 4, .members = 8, .tasks = 4, .samples = 1});
  write_report(dir.path());
  const std::string page = read_file(dir / "audit.html");
  for (const char* part :
       {"How rewards are earned", "Lone successes", "Length, calls and reward", "Habits of answers",
        "correlation with the reward", "total and currency"})
    EXPECT_THAT(page, HasSubstr(part));
  EXPECT_THAT(page, Not(HasSubstr("<script>alert")));
  write_report(dir.path());
  EXPECT_EQ(read_file(dir / "audit.html"), page) << "the same each time";
}

}  // namespace
}  // namespace rollcall
