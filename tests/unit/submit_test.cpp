// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "comms/error.h"
#include "configs/site_config.h"
#include "rollcall/submit_command.h"
#include "slurm/batch_script.h"
#include "slurm/sbatch.h"
#include "temp_folder.h"
#include "trainer/result.h"

namespace rollcall {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const std::filesystem::path kGolden = std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "slurm";
const std::filesystem::path kRepository = std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "../..";

// The error of `action`; its exit code must be that of bad input.
template <typename Action>
std::string refusal(Action action) {
  try {
    action();
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput) << error.what();
    return error.what();
  }
}

SiteOptions site(const std::string& text) { return parse_site_options(text, "/etc/site.yaml"); }

BatchJob ledger_job() {
  BatchJob job;
  job.name = "ledger";
  job.program = "/opt/rollcall/bin/rollcall";
  job.run_file = "/data/ledger/run.yaml";
  job.folder = "/data";
  job.runs_dir = "/data/runs";
  job.workers = 3;
  job.stop_before = std::chrono::minutes(5);
  return job;
}

// Compares a script with tests/golden/slurm/NAME.
void expect_golden(const std::string& name, const std::string& script) {
  const std::filesystem::path copy = std::filesystem::path(testing::TempDir()) / name;
  const bool same = slurp(kGolden / name) == script;
  if (!same) spit(copy, script);
  EXPECT_TRUE(same) << "differs from what it was; if that is meant: cp " << copy << " "
                    << kGolden / name;
}

TEST(BatchScript, OfOneNode) {
  expect_golden("one_node.sbatch", batch_script(ledger_job(), SiteOptions{}));
}

TEST(BatchScript, OfSeveralNodesWithEverythingASiteMayWant) {
  BatchJob job = ledger_job();
  job.learners = 2;
  job.workers = 7;
  job.stop_before = std::chrono::minutes(10);
  job.overrides = {"batch.group_size=32", "tools.0.url=http://a:1/?x=1&y=2;z"};
  expect_golden("several_nodes.sbatch",
                batch_script(job, read_site_options(kRepository / "slurm/site.example.yaml")));
}

TEST(BatchScript, OfASweepInAContainerWithoutRequeue) {
  BatchJob job = ledger_job();
  const std::vector<std::string> sweeps{"algorithm.learning_rate=1e-4,1e-3", "run.seed=1,2"};
  job.sweep = sweep_points(sweeps);
  job.sweep.erase(job.sweep.begin() + 1);  // done already
  expect_golden("sweep.sbatch", batch_script(job, site("requeue: false\ngpus_per_learner: 1\n"
                                                       "container: {image: /images/rollcall.sif, "
                                                       "binds: [/data, /scratch:/tmp]}\n")));
}

// A fenced block of `language` that begins at or behind `at`: where its text begins and ends.
std::pair<std::size_t, std::size_t> block(const std::string& page, const std::string& language,
                                          std::size_t at) {
  const std::string fence = "```" + language + "\n";
  const std::size_t begin = page.find(fence, at);
  if (begin == std::string::npos) return {begin, begin};
  return {begin + fence.size(), page.find("```", begin + fence.size())};
}

TEST(BatchScript, OfEachRecipeIsWhatTheReadmeShows) {
  BatchJob job = ledger_job();
  job.workers = 7;
  const std::string shown = slurp(kRepository / "slurm/README.md");
  std::string page = shown;
  int recipes = 0;
  for (auto yaml = block(page, "yaml", 0); yaml.first != std::string::npos; ++recipes) {
    const SiteOptions options = site(page.substr(yaml.first, yaml.second - yaml.first));
    const auto script = block(page, "sh", yaml.second);
    ASSERT_NE(script.first, std::string::npos);
    page.replace(script.first, script.second - script.first, batch_script(job, options));
    yaml = block(page, "yaml", script.first);
  }
  EXPECT_EQ(recipes, 5);
  const std::filesystem::path copy = std::filesystem::path(testing::TempDir()) / "slurm_README.md";
  if (page != shown) spit(copy, page);
  EXPECT_TRUE(page == shown) << "a script is another one now; if that is meant: cp " << copy
                             << " slurm/README.md";
}

TEST(BatchScript, OfAChainDoesNotRequeue) {
  BatchJob job = ledger_job();
  job.chain = true;
  const std::string script = batch_script(job, SiteOptions{});
  EXPECT_THAT(script, HasSubstr("#SBATCH --no-requeue\n"));
  EXPECT_THAT(script, HasSubstr("#SBATCH --dependency=singleton\n"));
  EXPECT_THAT(script, Not(HasSubstr(" --requeue")));
}

TEST(BatchScript, RefusesWhatCannotBeQuotedSafely) {
  for (const std::string text :
       {"run.name=a b", "run.name=$(id)", "run.name=`id`", "run.name='x'", "run.name=\"x\"",
        "run.name=a\nid", "run.name=a\\", "run.name=\xc3\xa4", "run.name=a\tb", "run.name=a#b"}) {
    BatchJob job = ledger_job();
    job.overrides = {text};
    EXPECT_THAT(refusal([&] { batch_script(job, SiteOptions{}); }), HasSubstr("--set")) << text;
    EXPECT_THAT(refusal([&] { sweep_points(std::vector{text + ",b"}); }), HasSubstr("--sweep"))
        << text;
  }
  for (std::string BatchJob::*path :
       {&BatchJob::program, &BatchJob::run_file, &BatchJob::folder, &BatchJob::runs_dir}) {
    BatchJob job = ledger_job();
    job.*path = "/data/my runs";
    EXPECT_THAT(refusal([&] { batch_script(job, SiteOptions{}); }), HasSubstr("/data/my runs"));
  }
  BatchJob job = ledger_job();
  job.runs_dir = "/data/%u";
  EXPECT_THAT(refusal([&] { batch_script(job, SiteOptions{}); }), HasSubstr("%"));
}

// What bash makes of the script: its last command with the program replaced by one that prints.
std::vector<std::string> words_bash_sees(std::string script, const std::string& environment) {
  TempFolder folder;
  const auto at = script.find("exec /opt/rollcall/bin/rollcall");
  EXPECT_NE(at, std::string::npos);
  script.replace(at, std::string("exec /opt/rollcall/bin/rollcall").size(), "printf '%s\\n'");
  spit(folder / "script", script + "printf '%s\\n' \"${ODD-}\"\n");
  const std::string command =
      environment + " bash " + (folder / "script").string() + " >" + (folder / "out").string();
  EXPECT_EQ(std::system(command.c_str()), 0);
  std::istringstream out(slurp(folder / "out"));
  std::vector<std::string> words;
  for (std::string word; std::getline(out, word);) words.push_back(word);
  return words;
}

TEST(BatchScript, GivesEachWordToTheProgramAsItWas) {
  BatchJob job = ledger_job();
  job.overrides = {"a=*", "b={1,2}", "c=~;&|<>(!)", "d=[x]?"};
  EXPECT_THAT(
      words_bash_sees(batch_script(job, site("environment: {ODD: \"it's $HOME `x` \\\\\"}")), ""),
      ElementsAre("train", "/data/ledger/run.yaml", "--set", "a=*", "--set", "b={1,2}", "--set",
                  "c=~;&|<>(!)", "--set", "d=[x]?", "--requeue", "it's $HOME `x` \\"));
}

TEST(BatchScript, GivesEachIndexOfAnArrayItsOwnSettings) {
  BatchJob job = ledger_job();
  job.sweep = sweep_points(std::vector<std::string>{"a=*,~", "b=;,&"});
  const std::string script = batch_script(job, SiteOptions{});
  EXPECT_THAT(words_bash_sees(script, "SLURM_ARRAY_TASK_ID=1"),
              ElementsAre("train", "/data/ledger/run.yaml", "--set=run.name=ledger-1", "--set=a=*",
                          "--set=b=&", "--requeue", ""));
  EXPECT_THAT(words_bash_sees(script, "SLURM_ARRAY_TASK_ID=2"),
              ElementsAre("train", "/data/ledger/run.yaml", "--set=run.name=ledger-2", "--set=a=~",
                          "--set=b=;", "--requeue", ""));
}

TEST(BatchScript, NeedsARankForEveryNode) {
  EXPECT_THAT(refusal([] { batch_script(ledger_job(), site("nodes: 5")); }),
              HasSubstr("5 nodes, the run has 4 ranks"));
}

TEST(BatchScript, WritesTimesAsSlurmReadsThem) {
  using namespace std::chrono_literals;
  EXPECT_EQ(slurm_time(90min), "01:30:00");
  EXPECT_EQ(slurm_time(24h), "1-00:00:00");
  EXPECT_EQ(slurm_time(61500ms), "00:01:02");
}

TEST(Sweep, HasEveryCombinationOnce) {
  const auto points = sweep_points(std::vector<std::string>{"a=1,2", "b=x,y,z"});
  ASSERT_EQ(points.size(), 6U);
  EXPECT_EQ(points[4].index, 4);
  EXPECT_THAT(points[4].overrides, ElementsAre("a=2", "b=y"));
  EXPECT_TRUE(sweep_points({}).empty());
}

TEST(Sweep, RefusesWhatIsNone) {
  const auto sweep = [](std::vector<std::string> texts) {
    return refusal([&] { sweep_points(texts); });
  };
  for (const std::string text : {"a", "=1", "a=", "a=1,", "a=1,1", ""})
    EXPECT_NE(sweep({text}), "") << text;
  EXPECT_THAT(sweep({"a=1", "a=2"}), HasSubstr("a is swept twice"));
  std::string many = "a=0";
  for (int i = 1; i <= 1000; ++i) many += "," + std::to_string(i);
  EXPECT_THAT(sweep({many}), HasSubstr("more than 1000"));
}

TEST(SiteFile, IsReadStrictly) {
  EXPECT_THAT(refusal([] { site("partitoin: cpu\ntime: 30s\nnodes: 0\n"); }),
              AllOf(HasSubstr("/etc/site.yaml:1:1: unknown key 'partitoin'; did you mean "
                              "'partition'?"),
                    HasSubstr("/etc/site.yaml:2:7: time: expected a duration"),
                    HasSubstr("/etc/site.yaml:3:8: nodes:")));
  EXPECT_THAT(
      refusal([] { site("account: \"a b\"\nmodules: [\"$(id)\"]\nextra: [constraint]\n"); }),
      AllOf(HasSubstr("account: expected a word"), HasSubstr("modules.0: expected a word"),
            HasSubstr("extra.0: expected an option of sbatch")));
  EXPECT_THAT(
      refusal([] { site("setup: [\"a\\nb\"]\nenvironment: {a-b: 1}\n"); }),
      AllOf(HasSubstr("setup.0: the text holds a line break"), HasSubstr("'a-b' is no name")));
  EXPECT_THAT(refusal([] { site("memory_per_rank: 9223372036854775807\nextra: [--array=1-4]\n"); }),
              AllOf(HasSubstr("memory_per_rank: "), HasSubstr("use --sweep")));
  EXPECT_THAT(refusal([] { site("nodes: 2\ncontainer: {image: a.sif}\n"); }),
              HasSubstr("works on one node"));
}

TEST(SiteFile, KeepsShellLinesAsTheyAre) {
  const SiteOptions options = site("setup: ['export X=\"${HOME}/a b\"']\nenvironment: {N: 3}\n");
  EXPECT_THAT(options.setup, ElementsAre("export X=\"${HOME}/a b\""));
  EXPECT_THAT(options.environment, ElementsAre(std::pair<std::string, std::string>("N", "3")));
}

// `rollcall submit` in a folder of its own, with a program of the test's in the place of sbatch.
class Submit : public testing::Test {
 protected:
  void SetUp() override {
    former_path_ = ::getenv("PATH");
    spit(folder_ / "run.yaml", "run: {name: ledger, dir: " + (folder_ / "runs").string() +
                                   ", steps: 5}\nmodel: {path: m}\ndata: {train: t.jsonl}\n"
                                   "grader: {url: \"http://g/\"}\n");
    spit(folder_ / "site.yaml", "partition: cpu\n");
    sbatch("echo 'sbatch: warning: a word' >&2; echo \"$(cat \"${@: -1}\" | wc -l)\" >>" +
           (folder_ / "calls").string() + "; echo '17;cluster'");
    ::setenv("PATH", ((folder_ / "bin").string() + ":" + former_path_).c_str(), 1);
    ::setenv("ROLLCALL_SITE", (folder_ / "site.yaml").c_str(), 1);
    arguments_.run.run_file = folder_ / "run.yaml";
  }
  void TearDown() override {
    ::setenv("PATH", former_path_.c_str(), 1);
    ::unsetenv("ROLLCALL_SITE");
  }

  void sbatch(const std::string& body) {
    spit(folder_ / "bin/sbatch", "#!/usr/bin/env bash\n" + body + "\n");
    ::chmod((folder_ / "bin/sbatch").c_str(), 0755);
  }
  int calls() {
    const std::string text = slurp(folder_ / "calls");
    return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  }
  void finish(const std::string& name, std::int64_t step) {
    std::filesystem::create_directories(folder_ / "runs" / name);
    RunResult result;
    result.status = RunStatus::kDone;
    result.step = step;
    write_result(folder_ / "runs" / name, result);
  }
  int submit() { return run_submit(arguments_, out_, remarks_); }

  TempFolder folder_;
  SubmitArguments arguments_;
  std::ostringstream out_, remarks_;
  std::string former_path_;
};

TEST_F(Submit, HandsOverAScriptAndSaysHowToWatchIt) {
  EXPECT_EQ(submit(), 0);
  EXPECT_EQ(calls(), 1);
  EXPECT_THAT(slurp(folder_ / "runs/ledger/submit.sbatch"),
              AllOf(HasSubstr("#SBATCH --partition=cpu\n"), HasSubstr("/run.yaml --requeue\n")));
  EXPECT_TRUE(std::filesystem::is_directory(folder_ / "runs/ledger/log"));
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("submitted job 17 (ledger)"), HasSubstr("squeue -j 17\n"),
                                HasSubstr("/runs/ledger/log/slurm-17.log\n"),
                                HasSubstr("/runs/ledger/result.json\n"), HasSubstr("scancel 17 ")));
}

TEST_F(Submit, ChangesNothingOnADryRun) {
  arguments_.dry_run = true;
  EXPECT_EQ(submit(), 0);
  EXPECT_EQ(calls(), 0);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
  EXPECT_THAT(out_.str(), testing::StartsWith("#!/bin/bash\n"));
}

TEST_F(Submit, SubmitsAChainOfJobs) {
  arguments_.chain = 3;
  EXPECT_EQ(submit(), 0);
  EXPECT_EQ(calls(), 3);
  EXPECT_THAT(out_.str(), HasSubstr("submitted job 17,17,17"));
}

TEST_F(Submit, ChecksTheRunFileFirst) {
  arguments_.run.overrides = {"batch.group_sise=2"};
  EXPECT_THAT(refusal([&] { submit(); }), HasSubstr("group_size"));
  arguments_.run.overrides.clear();
  arguments_.sweeps = {"batch.group_size=2,two"};
  EXPECT_THAT(refusal([&] { submit(); }), HasSubstr("batch.group_size: expected an integer"));
  arguments_.sweeps = {"cluster.workers=1,2"};
  EXPECT_THAT(refusal([&] { submit(); }), HasSubstr("the number of ranks"));
  EXPECT_EQ(calls(), 0);
}

TEST_F(Submit, RefusesJobsThatWouldStopAsTheyBegin) {
  arguments_.run.overrides = {"cluster.stop_before=130m"};
  EXPECT_THAT(refusal([&] { submit(); }), HasSubstr("stops 7800 s before their end"));
  EXPECT_EQ(calls(), 0);
}

TEST_F(Submit, RefusesARunThatIsDoneUnlessItHasMoreSteps) {
  finish("ledger", 5);
  EXPECT_THAT(refusal([&] { submit(); }), HasSubstr("runs/ledger is done"));
  EXPECT_EQ(calls(), 0);
  arguments_.run.overrides = {"run.steps=6"};
  EXPECT_EQ(submit(), 0);
  EXPECT_THAT(remarks_.str(), HasSubstr("done at step 5"));
}

TEST_F(Submit, LeavesWhatIsDoneOutOfASweep) {
  finish("ledger-1", 5);
  arguments_.sweeps = {"run.seed=7,8,9"};
  EXPECT_EQ(submit(), 0);
  EXPECT_THAT(slurp(folder_ / "runs/ledger/submit.sbatch"), HasSubstr("#SBATCH --array=0,2\n"));
  EXPECT_THAT(remarks_.str(), HasSubstr("left out, for it is done: "));
  EXPECT_THAT(out_.str(), HasSubstr("/runs/ledger-INDEX/log/slurm-17_INDEX.log"));
  EXPECT_TRUE(std::filesystem::is_directory(folder_ / "runs/ledger-2/log"));
}

TEST_F(Submit, RefusesToSweepWhatTheJobsOfAnArrayShare) {
  for (const std::string sweep : {"run.name=a,b", "run.dir=a,b", "cluster.stop_before=1m,2m"}) {
    arguments_.sweeps = {sweep};
    EXPECT_THROW(submit(), Error) << sweep;
    EXPECT_EQ(calls(), 0);
  }
}

TEST_F(Submit, TellsWhatSbatchSaid) {
  sbatch("echo 'sbatch: error: invalid account' >&2; exit 1");
  try {
    submit();
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("exit code 1"), HasSubstr("invalid account")));
  }
  std::filesystem::remove(folder_ / "bin/sbatch");
  ::setenv("PATH", (folder_ / "bin").c_str(), 1);
  EXPECT_THROW(submit(), Error);
}

TEST_F(Submit, TakesTheSiteFileThatIsNamed) {
  spit(folder_ / "other.yaml", "partition: gpu\n");
  arguments_.site = folder_ / "other.yaml";
  arguments_.dry_run = true;
  EXPECT_EQ(submit(), 0);
  EXPECT_THAT(out_.str(), HasSubstr("--partition=gpu"));
  arguments_.site = folder_ / "absent.yaml";
  EXPECT_THAT(refusal([&] { submit(); }), HasSubstr("cannot read the site file"));
}

}  // namespace
}  // namespace rollcall
