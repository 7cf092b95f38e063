// SPDX-License-Identifier: Apache-2.0
#include "trainer/resume_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "tests/unit/journal_samples.h"
#include "tests/unit/temp_folder.h"
#include "trainer/journal.h"

namespace rollcall {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kConfig =
    "run: {seed: 1, steps: 10}\nbatch: {prompts: 4, group_size: 8}\n"
    "tools:\n  - {name: find, url: \"http://a\", timeout: 30s}\n"
    "grader: {flags: {hacking: {action: zero}}}\nalgorithm: {learning_rate: 1e-6}\n";

std::string with(const std::string& from, const std::string& to) {
  std::string config = kConfig;
  return config.replace(config.find(from), from.size(), to);
}

std::string about(const std::string& config, const std::string& train = "16 rows, xxh3 a",
                  const std::string& weights = "77") {
  return nlohmann::json{
      {"config", config}, {"inputs", {{"data.train", train}}}, {"initial_weights_xxh3", weights}}
      .dump();
}

RunChanges changes(const std::string& now, bool open_rows = true) {
  return run_changes(about(kConfig), about(now), std::nullopt, open_rows);
}

TEST(CheckResume, RefusesAJournalThatSaysNonsenseAboutItsRun) {
  const TempFolder folder;
  const auto file = folder.path() / "journal.h5";
  { Journal(file, R"({"config":7,"inputs":[1]})").append(sample_trajectory(0)); }
  ResumePoint at;
  at.journal = file;
  EXPECT_THROW(check_resume(at, about(kConfig)), Error);
}

TEST(RunChanges, AreNoneBetweenTheSame) {
  EXPECT_THAT(changes(kConfig).refused, IsEmpty());
  EXPECT_THAT(changes(kConfig).accepted, IsEmpty());
}

TEST(RunChanges, AcceptWhatLeavesTheRolloutsTheirMeaning) {
  const std::string now =
      "run: {seed: 1, steps: 20}\nbatch: {prompts: 4, group_size: 8}\n"
      "tools:\n  - {name: find, url: \"http://b\", timeout: 60s}\n"
      "grader: {flags: {hacking: {action: zero}}}\n"
      "algorithm: {learning_rate: 2e-6}\n";
  EXPECT_THAT(changes(now).refused, IsEmpty());
  EXPECT_THAT(changes(now).accepted,
              ElementsAre("algorithm.learning_rate: 1e-6 -> 2e-6", "run.steps: 10 -> 20",
                          "tools.0.timeout: 30s -> 60s", "tools.0.url: http://a -> http://b"));
}

TEST(RunChanges, RefuseAnotherSeedOtherDataAndAnotherModel) {
  EXPECT_THAT(changes(with("seed: 1", "seed: 2"), false).refused, ElementsAre("run.seed: 1 -> 2"));
  EXPECT_THAT(
      run_changes(about(kConfig), about(kConfig, "17 rows, xxh3 b", "78"), {}, false).refused,
      ElementsAre("data.train: 16 rows, xxh3 a -> 17 rows, xxh3 b",
                  "model.path, its weights: xxh3 77 -> xxh3 78"));
}

TEST(RunChanges, RefuseAnotherCriticByItsKey) {
  const auto config = [](const std::string& algorithm) {
    return with("algorithm: {learning_rate: 1e-6}", "algorithm: " + algorithm);
  };
  const std::string began = config("{advantage: gae, critic: {trunk: own, gamma: 1}}");
  const auto refused = [](const std::string& before, const std::string& now) {
    return run_changes(about(before), about(now), std::nullopt, false).refused;
  };
  EXPECT_THAT(refused(began, began), IsEmpty());
  EXPECT_THAT(
      refused(began, config("{advantage: gae, critic: {trunk: shared, gamma: 0.9}}")),
      ElementsAre("algorithm.critic.gamma: 1 -> 0.9", "algorithm.critic.trunk: own -> shared"));
  const std::string without = config("{advantage: rloo, critic: {}}");
  EXPECT_THAT(refused(began, without), ElementsAre("algorithm.advantage: gae -> rloo"));
  EXPECT_THAT(refused(without, began), ElementsAre("algorithm.advantage: rloo -> gae"));
  EXPECT_THAT(refused(without, config("{advantage: drgrpo, critic: {}}")), IsEmpty());
}

TEST(RunChanges, RefuseAnotherPlanWhileAStepIsOpen) {
  const std::string now = with("group_size: 8", "group_size: 4");
  EXPECT_THAT(changes(now, false).refused, IsEmpty());
  EXPECT_THAT(changes(now, false).accepted, ElementsAre("batch.group_size: 8 -> 4"));
  EXPECT_THAT(changes(now, true).refused, ElementsAre(HasSubstr("batch.group_size: 8 -> 4 (")));
  EXPECT_THAT(changes(with("name: find", "name: search")).refused,
              ElementsAre(HasSubstr("tools.0.name: find -> search")));
  EXPECT_THAT(changes(with("{hacking: {action: zero}}", "{}")).refused,
              ElementsAre(HasSubstr("grader.flags.hacking.action: zero -> none")));
}

TEST(RunChanges, CompareAnOpenStepWithTheStartThatSampledIt) {
  const std::string last = with("group_size: 8", "group_size: 4");
  EXPECT_THAT(run_changes(about(kConfig), about(last), last, true).refused, IsEmpty());
  EXPECT_THAT(run_changes(about(kConfig), about(kConfig), last, true).refused,
              ElementsAre(HasSubstr("batch.group_size: 4 -> 8")));
}

TEST(RunChanges, TellWhetherUpdatesMadeAgainEndElsewhere) {
  const std::string now = with("1e-6", "2e-6");
  EXPECT_TRUE(changes(now, true).other_updates);
  EXPECT_FALSE(changes(now, false).other_updates) << "none is made again";
  EXPECT_FALSE(changes(with("steps: 10", "steps: 20"), true).other_updates);
  EXPECT_FALSE(run_changes(about(kConfig), about(now), now, true).other_updates)
      << "the change came before the step";
}

TEST(RunChanges, LeaveAloneWhatOnlyOneSideKnows) {
  const std::string older = with("run: {seed: 1, ", "run: {");
  EXPECT_THAT(run_changes(about(older), about(kConfig), {}, true).refused, IsEmpty());
  EXPECT_THAT(run_changes("{}", about(kConfig), "no: [configuration", true).refused, IsEmpty());
  EXPECT_THAT(run_changes("torn", about(kConfig), {}, true).refused, IsEmpty());
}

TEST(CheckResume, RefusesAJournalThatIsAbsentOrOlderThanTheCheckpoint) {
  const TempFolder folder;
  const auto journal = folder.path() / "learner-0.h5";
  const auto complaint = [&](std::int64_t checkpoint_rows) {
    try {
      check_resume(
          {folder.path() / "config.yaml", journal, folder.path() / "step-000001", checkpoint_rows},
          about(kConfig));
      return std::string();
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kStopped);
      EXPECT_THAT(error.what_to_do(), HasSubstr("journal of this run back"));
      return std::string(error.what());
    }
  };
  EXPECT_EQ(complaint(0), "");
  EXPECT_THAT(complaint(2), HasSubstr("counts 2 rows in " + journal.string() + ", which is not"));
  { Journal(journal, about(kConfig)).append(sample_trajectory(0)); }
  EXPECT_EQ(complaint(1), "");
  EXPECT_THAT(complaint(2), HasSubstr("has 1: it is older"));
}

// Which configuration the steps before each change had, after several starts.
TEST(FormerConfigs, StayForTheStepsThatTheyMade) {
  const TempFolder folder;
  const auto kept = [&] {
    std::map<std::int64_t, std::string> texts;
    for (const auto& [step, file] : former_configs(folder.path())) texts[step] = read_file(file);
    return texts;
  };
  using Texts = std::map<std::int64_t, std::string>;
  write_config(folder.path(), 0, "a");
  write_config(folder.path(), 10, "a");
  EXPECT_EQ(kept(), Texts());
  write_config(folder.path(), 10, "b");  // ends before it has made a step
  write_config(folder.path(), 10, "c");
  EXPECT_EQ(kept(), (Texts{{10, "a"}}));
  write_config(folder.path(), 20, "d");
  EXPECT_EQ(kept(), (Texts{{10, "a"}, {20, "c"}}));
  write_config(folder.path(), 15, "e");  // goes back behind a damaged checkpoint
  EXPECT_EQ(kept(), (Texts{{10, "a"}, {15, "c"}}));
  EXPECT_EQ(read_file(folder.path() / "config.yaml"), "e");
}

}  // namespace
}  // namespace rollcall
