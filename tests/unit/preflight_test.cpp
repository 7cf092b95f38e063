// SPDX-License-Identifier: Apache-2.0
#include "trainer/preflight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "trainer/success_rates.h"

namespace rollcall {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TaskOutcome task(std::int64_t row, std::int64_t passed, std::int64_t graded) {
  TaskOutcome o{.task = row, .passed = passed};
  for (std::int64_t i = 0; i < graded; ++i) o.rewards.push_back(i < passed ? 1 : 0);
  o.scores = o.rewards;
  return o;
}

std::vector<TaskOutcome> drawn(int tasks, std::int64_t samples, std::uint64_t seed,
                               const std::function<double(std::mt19937_64&)>& rate) {
  std::mt19937_64 random(seed);
  std::vector<TaskOutcome> outcomes;
  for (int t = 0; t < tasks; ++t) {
    const double p = rate(random);
    outcomes.push_back(
        task(t, std::binomial_distribution<std::int64_t>(samples, p)(random), samples));
  }
  return outcomes;
}

// A run of 16 x 16 rollouts of enough tasks.
Preflight preflight_of(const std::vector<TaskOutcome>& outcomes, std::int64_t samples) {
  Preflight p;
  p.name = "run <1>";
  p.planned = static_cast<std::int64_t>(outcomes.size()) * samples;
  p.seconds = 10;
  p.workers = 1;
  p.run = {.batch = {.prompts = 16, .group_size = 16},
           .advantage = "rloo_batch_std",
           .steps = 100,
           .train_tasks = 1000,
           .workers = 2,
           .rollouts_per_worker = 64};
  p.learnability = learnability(outcomes, samples, 1);
  p.disk.free = 1e9;
  p.discard_share = 0.5;
  return p;
}

std::vector<TaskOutcome> all_alike(std::int64_t passed, std::int64_t samples) {
  std::vector<TaskOutcome> outcomes;
  for (int t = 0; t < 64; ++t) outcomes.push_back(task(t, passed, samples));
  return outcomes;
}

TEST(SuccessRates, PutTasksWhereTheyAre) {
  std::vector<GroupCount> counts(200, GroupCount{50, 100});
  const SuccessRates fit = fit_success_rates(counts);
  EXPECT_NEAR(fit.expect([](double) { return 1; }), 1, 1e-9);
  EXPECT_NEAR(fit.expect([](double p) { return p; }), 0.5, 0.01);
  EXPECT_GT(fit.expect([](double p) { return p > 0.3 && p < 0.7 ? 1 : 0; }), 0.98);
}

TEST(SuccessRates, DoNotDependOnTheOrderOfTasks) {
  const std::vector<GroupCount> counts{{0, 8}, {3, 8}, {8, 8}, {1, 16}};
  const std::vector<GroupCount> turned(counts.rbegin(), counts.rend());
  EXPECT_EQ(fit_success_rates(counts).shares, fit_success_rates(turned).shares);
}

// Of a task that failed 4 times nobody knows much: it is neither hopeless nor one in four.
TEST(SuccessRates, TakeAFailureOfFewTriesForWhatTheOthersMakeLikely) {
  std::vector<GroupCount> counts(100, GroupCount{0, 4});
  counts.resize(130, GroupCount{1, 4});
  const double rate = fit_success_rates(counts).expect([](double p) { return p; });
  EXPECT_NEAR(rate, 30.0 / 520, 0.02);
}

struct Spread {
  const char* name;
  std::function<double(std::mt19937_64&)> rate;
  std::function<double(std::int64_t)> informative;  // true share of groups with a signal
};

double beta_draw(std::mt19937_64& random, double a, double b) {
  const double x = std::gamma_distribution<double>(a)(random);
  return x / (x + std::gamma_distribution<double>(b)(random));
}

double log_beta(double a, double b) { return std::lgamma(a) + std::lgamma(b) - std::lgamma(a + b); }

double beta_informative(double a, double b, std::int64_t size) {
  const auto n = static_cast<double>(size);
  return 1 - std::exp(log_beta(a + n, b) - log_beta(a, b)) -
         std::exp(log_beta(a, b + n) - log_beta(a, b));
}

// Synthetic tasks of known rates: what is predicted is true within three standard errors.
TEST(Learnability, PredictsTheSignalOfGroupsOfKnownTasks) {
  const Spread spreads[] = {
      {"easy and hard", [](auto& r) { return beta_draw(r, 0.6, 2); },
       [](std::int64_t size) { return beta_informative(0.6, 2, size); }},
      {"hard", [](auto& r) { return beta_draw(r, 0.5, 10); },
       [](std::int64_t size) { return beta_informative(0.5, 10, size); }},
      {"half of them impossible", [](auto& r) { return r() % 2 == 0 ? 0.0 : 0.2; },
       [](std::int64_t size) { return 0.5 * informative_probability(0.2, size); }}};
  for (const Spread& spread : spreads) {
    const Learnability l = learnability(drawn(256, 32, 5, spread.rate), 32, 1);
    for (const GroupSignal& g : l.groups) {
      if (g.extrapolated) continue;
      const double standard_error = (g.share.high_95 - g.share.low_95) / (2 * 1.96);
      EXPECT_NEAR(g.share.mean, spread.informative(g.group_size), 3 * standard_error)
          << spread.name << ", groups of " << g.group_size;
    }
  }
}

TEST(Learnability, EstimatesTheSignalOfARollout) {
  const auto outcomes = drawn(400, 16, 7, [](auto& r) { return r() % 2 == 0 ? 0.1 : 0.4; });
  const Learnability l = learnability(outcomes, 16, 1);
  const double truth = 0.5 * (0.1 * 0.9 + 0.4 * 0.6);
  EXPECT_NEAR(l.signal.mean, truth, 3 * (l.signal.high_95 - l.signal.low_95) / (2 * 1.96));
}

TEST(Learnability, CountsTasksByHand) {
  const std::vector<TaskOutcome> outcomes{task(0, 0, 4), task(1, 4, 4), task(2, 1, 4),
                                          task(3, 0, 4)};
  const Learnability l = learnability(outcomes, 4, 1);
  EXPECT_DOUBLE_EQ(l.share_zero, 0.5);
  EXPECT_DOUBLE_EQ(l.share_one, 0.25);
  EXPECT_DOUBLE_EQ(l.share_between, 0.25);
  EXPECT_DOUBLE_EQ(l.share_mixed, 0.25);
  EXPECT_EQ(l.histogram.front().tasks, 2);
  EXPECT_EQ(l.histogram.back().tasks, 1);
  EXPECT_EQ(l.histogram[3].tasks, 1);  // above 0.2, to 0.3
  EXPECT_DOUBLE_EQ(l.signal.mean, 0.25 * 3 / 12);
  EXPECT_FALSE(l.pass_rate_bound);
  EXPECT_EQ(l.rise.k, 4);
  EXPECT_DOUBLE_EQ(l.rise.pass_gain, 0.5 - 0.375);
  EXPECT_TRUE(l.rise.goes_on);
}

TEST(Learnability, BoundsWhatNobodySolvedByTheRuleOfThree) {
  const Learnability l = learnability(all_alike(0, 32), 32, 1);
  EXPECT_DOUBLE_EQ(l.pass_rate_bound.value(), 3.0 / 2048);
  EXPECT_DOUBLE_EQ(l.groups.back().share.high_95, informative_probability(3.0 / 2048, 256));
  EXPECT_EQ(l.signal.mean, 0);
  EXPECT_FALSE(l.rise.goes_on);
}

TEST(Learnability, TakesRewardsOfManyValuesForASignalToo) {
  std::vector<TaskOutcome> outcomes = all_alike(0, 4);
  for (TaskOutcome& o : outcomes) o.rewards = o.scores = {0, 0.25, 0.5, 0.25};
  const Learnability l = learnability(outcomes, 4, 1);
  EXPECT_EQ(l.passed, 0);
  EXPECT_DOUBLE_EQ(l.share_mixed, 1);
  EXPECT_GT(l.signal.mean, 0);
  EXPECT_NEAR(l.informative(2), 5.0 / 6, 1e-12) << "but for the pair of quarters";
  EXPECT_DOUBLE_EQ(l.informative(3), 1);
  const PreflightJudgement j = judge(preflight_of(outcomes, 4));
  EXPECT_NE(j.verdict, PreflightVerdict::kNo);
  EXPECT_THAT(j.reasons.front(), testing::HasSubstr("rollouts of different rewards"));
}

// A price on tools makes three rewards of two outcomes, and says no less of large groups.
TEST(Learnability, LooksBeyondItsSamplesWherePassesArePriced) {
  auto outcomes = drawn(300, 16, 3, [](auto&) { return 0.01; });
  const Learnability plain = learnability(outcomes, 16, 1);
  int passes = 0;
  for (TaskOutcome& o : outcomes)
    for (double& r : o.rewards)
      if (r > 0) r -= 0.05 * (passes++ % 3);
  const Learnability priced = learnability(outcomes, 16, 1);
  ASSERT_FALSE(priced.values.empty());
  EXPECT_NEAR(priced.informative(256), plain.informative(256), 1e-9);
  EXPECT_NEAR(priced.groups.back().share.mean, plain.groups.back().share.mean, 1e-9);
}

// Every rollout has a score of its own: any two differ.
TEST(Learnability, KnowsThatScoresOfTheirOwnAlwaysDiffer) {
  std::vector<TaskOutcome> outcomes = all_alike(0, 64);
  double next = 0;
  for (TaskOutcome& o : outcomes)
    for (std::size_t i = 0; i < o.rewards.size(); ++i) o.rewards[i] = o.scores[i] = next += 1e-5;
  for (const GroupSignal& g : learnability(outcomes, 64, 1).groups)
    EXPECT_DOUBLE_EQ(g.share.mean, 1) << g.group_size;
}

TEST(PreflightJudgement, LetsARunWithASignalGo) {
  const PreflightJudgement j = judge(preflight_of(all_alike(8, 32), 32));
  EXPECT_EQ(j.verdict, PreflightVerdict::kGo);
  EXPECT_THAT(j.advice.settings, IsEmpty());
  EXPECT_NEAR(j.as_planned.rollouts_per_step, 256, 1e-9);
  // 2048 rollouts in 10 s with one worker, and the run has two: 256 x 100 rollouts.
  EXPECT_NEAR(j.as_planned.hours_of_run, 25600 / 409.6 / 3600, 1e-9);
  EXPECT_NEAR(j.as_planned.rollouts_to_first_signal.mean, 8 / (8.0 * 24 / (32 * 31)), 1e-9);
}

TEST(PreflightJudgement, RefusesWhatIsNeverSolvedAndWhatAlwaysIs) {
  const PreflightJudgement hopeless = judge(preflight_of(all_alike(0, 32), 32));
  EXPECT_EQ(hopeless.verdict, PreflightVerdict::kNo);
  EXPECT_THAT(hopeless.reasons, Contains(HasSubstr("rollcall sft")));
  const PreflightJudgement trained = judge(preflight_of(all_alike(32, 32), 32));
  EXPECT_EQ(trained.verdict, PreflightVerdict::kNo);
  EXPECT_THAT(trained.reasons, Contains(HasSubstr("harder tasks")));
}

TEST(PreflightJudgement, AdvisesStepsThatGrowWhereSuccessesAreRare) {
  std::vector<TaskOutcome> outcomes = all_alike(0, 64);
  for (std::size_t t = 0; t < 6; ++t) outcomes[t] = task(outcomes[t].task, 1, 64);
  const PreflightJudgement j = judge(preflight_of(outcomes, 64));
  EXPECT_EQ(j.verdict, PreflightVerdict::kGoWith);
  EXPECT_THAT(j.advice.settings, ElementsAre("batch.adaptive.target_signal=8"));
  EXPECT_GT(j.as_advised.signal_per_step, j.as_planned.signal_per_step);

  Preflight follows = preflight_of(outcomes, 64);
  follows.run.batch.adaptive.target_signal = 8;
  EXPECT_EQ(judge(follows).verdict, PreflightVerdict::kGo);
  Preflight small = preflight_of(outcomes, 64);
  small.run.batch.group_size = 4;
  EXPECT_THAT(judge(small).advice.settings, Contains("batch.group_size=8"));
}

TEST(PreflightJudgement, AdvisesMorePromptsWhereAStepIsTooSmall) {
  Preflight p = preflight_of(all_alike(3, 32), 32);
  p.run.batch.prompts = 2;
  const PreflightJudgement j = judge(p);
  EXPECT_EQ(j.verdict, PreflightVerdict::kGoWith);
  EXPECT_EQ(j.advice.group_size, 16);
  EXPECT_THAT(j.advice.settings, ElementsAre("batch.prompts=" + std::to_string(j.advice.prompts)));
  EXPECT_GE(j.as_advised.signal_per_step, 8);
}

TEST(PreflightJudgement, CapsStepsThatGrowByTheHoursThatThereAre) {
  std::vector<TaskOutcome> outcomes = all_alike(0, 64);
  for (std::size_t t = 0; t < 6; ++t) outcomes[t] = task(outcomes[t].task, 1, 64);
  Preflight p = preflight_of(outcomes, 64);
  p.run.hours = 0.05;  // 180 s, 9 for a step
  const auto most = static_cast<std::int64_t>(9 * p.rollouts_per_second());
  EXPECT_THAT(judge(p).advice.settings,
              ElementsAre("batch.adaptive.target_signal=8",
                          "batch.adaptive.max_rollouts=" + std::to_string(most)));
  EXPECT_THAT(judge(p).warnings, Contains(HasSubstr("hours and there are 0.05")));
  p.run.hours = 1000;
  EXPECT_THAT(judge(p).advice.settings, ElementsAre("batch.adaptive.target_signal=8"));
  EXPECT_THAT(judge(p).warnings, IsEmpty());
}

TEST(PreflightJudgement, RefusesAGraderThatPassesNothingAtAll) {
  Preflight p = preflight_of(all_alike(8, 32), 32);
  p.canaries = {{.name = "empty", .graded = 16, .passed = 16}, {.name = "prompt", .graded = 16}};
  const PreflightJudgement j = judge(p);
  EXPECT_EQ(j.verdict, PreflightVerdict::kNo);
  EXPECT_THAT(j.reasons.front(), HasSubstr("(empty) on 16 of 16"));
  p.canaries = {{.name = "shuffled", .graded = 16, .passed = 8}};
  EXPECT_EQ(judge(p).verdict, PreflightVerdict::kGo);
  EXPECT_THAT(judge(p).warnings, Contains(HasSubstr("can be guessed")));
}

TEST(PreflightJudgement, RefusesAGraderThatThrowsCoins) {
  Preflight p = preflight_of(all_alike(8, 32), 32);
  const std::vector<Regrade> coins(
      4, {.first = 1, .scores = {1, 0, 0, 1}, .passed = {true, false, false, true}});
  p.regrading = compare_gradings(coins, 4, 0);
  EXPECT_DOUBLE_EQ(p.regrading.disagreement, 2.0 / 3);
  EXPECT_EQ(p.regrading.scores_differ, 4);
  EXPECT_EQ(judge(p).verdict, PreflightVerdict::kNo);
}

TEST(PreflightJudgement, SuspectsAGraderThatForgets) {
  Preflight p = preflight_of(all_alike(8, 32), 32);
  p.regrading = compare_gradings(
      std::vector<Regrade>(4, {.first = 1, .scores = {0, 0}, .passed = {false, false}}), 2, 0);
  EXPECT_EQ(p.regrading.first_differs, 4);
  EXPECT_EQ(judge(p).verdict, PreflightVerdict::kGo);
  EXPECT_THAT(judge(p).warnings, Contains(HasSubstr("drop a trace's state")));
}

TEST(PreflightJudgement, RefusesADiskThatIsTooSmallAndEndpointsThatFault) {
  Preflight p = preflight_of(all_alike(8, 32), 32);
  p.disk.checkpoints = 2e9;
  EXPECT_THAT(judge(p).reasons, Contains(HasSubstr("2.0 GB and run.dir has 1.0 GB free")));
  p = preflight_of(all_alike(8, 32), 32);
  p.left_out = {{"tool_fault", 1500}, {"masked", 100}};
  EXPECT_EQ(judge(p).verdict, PreflightVerdict::kNo);
  p.left_out = {{"masked", 1500}};
  EXPECT_EQ(judge(p).verdict, PreflightVerdict::kGo);
}

TEST(FurtherSamples, DoubleWhileNothingIsKnown) {
  EXPECT_EQ(further_samples(all_alike(0, 32), 64, 32, 8192), 32);
  EXPECT_EQ(further_samples(all_alike(0, 32), 64, 96, 8192), 32);  // up to the cap
  EXPECT_EQ(further_samples(all_alike(0, 32), 64, 128, 8192), 0);
  EXPECT_EQ(further_samples(all_alike(1, 32), 64, 32, 8192), 0);
  EXPECT_EQ(further_samples(all_alike(32, 32), 64, 32, 8192), 0);
}

TEST(Preflight, SaysTheSameInAllItsForms) {
  Preflight p = preflight_of(all_alike(0, 32), 32);
  const PreflightJudgement j = judge(p);
  const auto json = nlohmann::json::parse(preflight_json(p, j));
  EXPECT_EQ(json.at("verdict"), "no");
  EXPECT_TRUE(json.at("plan").at("as_planned").at("rollouts_to_first_signal").at("mean").is_null());
  EXPECT_EQ(json.at("pass_at_k").size(), 6u);
  EXPECT_THAT(preflight_text(p, j), HasSubstr("verdict: no"));
  const std::string page = preflight_page(p, j);
  EXPECT_THAT(page, HasSubstr("run &lt;1&gt;"));
  EXPECT_EQ(page.find("run <1>"), std::string::npos);
}

}  // namespace
}  // namespace rollcall
