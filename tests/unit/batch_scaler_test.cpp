// SPDX-License-Identifier: Apache-2.0
#include "trainer/batch_scaler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "comms/error.h"
#include "model/sampling.h"
#include "trainer/counting.h"

namespace rollcall {
namespace {

constexpr std::int64_t kTasks = 400;

BatchOptions adaptive(double target = 32) {
  BatchOptions options{.prompts = 16, .group_size = 16};
  options.adaptive.target_signal = target;
  return options;
}

// Agents whose chance of success is known.
class Agents {
 public:
  explicit Agents(std::function<double(std::int64_t task)> chance) : chance_(std::move(chance)) {}

  std::vector<GroupOutcome> play(const BatchScaler::Round& round) {
    std::vector<GroupOutcome> groups;
    for (const auto task : round.tasks) {
      groups.push_back({task, {}});
      for (std::int64_t i = 0; i < round.group_size; ++i)
        groups.back().rewards.push_back(uniform_draw(5, drawn_++) < chance_(task) ? 1 : 0);
    }
    return groups;
  }

  struct Step {
    std::int64_t rollouts = 0, rounds = 0;
    double signal = 0, step_size = 0;
  };
  Step step(BatchScaler& scaler) {
    Step step;
    while (const auto round = scaler.next_round()) {
      step.rollouts += round->rollouts();
      scaler.observe(play(*round));
    }
    step.rounds = scaler.rounds();
    step.signal = scaler.signal();
    step.step_size = scaler.step_size();
    scaler.end_step();
    return step;
  }
  Step steps(BatchScaler& scaler, int count) {
    Step last;
    while (count-- > 0) last = step(scaler);
    return last;
  }

 private:
  std::function<double(std::int64_t)> chance_;
  std::uint64_t drawn_ = 0;
};

Agents all_alike(double p) {
  return Agents([p](std::int64_t) { return p; });
}

TEST(BatchScaler, KnowsRareSuccessesOfLargeGroupsFromEarlierRounds) {
  BatchScaler scaler({.prompts = 2, .group_size = 16}, kTasks, 3);
  EXPECT_TRUE(scaler.rare_success(0, 16)) << "nothing is known yet";
  EXPECT_FALSE(scaler.rare_success(0, 7));
  ASSERT_TRUE(scaler.next_round());
  std::vector<double> rare(16, 0), often(16, 1);
  rare[3] = 1;
  const GroupOutcome outcomes[] = {{0, rare}, {1, often}};
  scaler.observe(outcomes);
  EXPECT_TRUE(scaler.rare_success(0, 8));
  EXPECT_FALSE(scaler.rare_success(0, 7)) << "no success of a small group weighs so much";
  EXPECT_FALSE(scaler.rare_success(0, 32)) << "about three are expected";
  EXPECT_FALSE(scaler.rare_success(1, 16));
  EXPECT_TRUE(scaler.rare_success(2, 16))
      << "half of the others' rollouts pass, but none of it was";
  scaler.end_step();
  BatchScaler resumed({.prompts = 2, .group_size = 16}, kTasks, 3);
  resumed.restore(scaler.state());
  for (const std::int64_t size : {8, 12, 16, 24, 32})
    EXPECT_EQ(resumed.rare_success(0, size), scaler.rare_success(0, size)) << size;
}

TEST(SignalMass, IsThatOfCountsForZeroAndOne) {
  // 1 of 4: 4/3 * (1/16 * 3 + 9/16) = 1; 2 of 2: nothing.
  EXPECT_DOUBLE_EQ(signal_mass(std::vector<GroupOutcome>{{0, {1, 0, 0, 0}}, {1, {1, 1}}}), 1);
  const GroupCount counts[] = {{3, 8}};
  EXPECT_NEAR(signal_mass(std::vector<GroupOutcome>{{0, {1, 1, 1, 0, 0, 0, 0, 0}}}),
              signal_of(counts).mass, 1e-12);
}

TEST(BatchScaler, DoesAsConfiguredWhereItIsOff) {
  BatchScaler scaler({.prompts = 3, .group_size = 4}, kTasks, 7);
  const auto round = scaler.next_round();
  ASSERT_TRUE(round);
  EXPECT_EQ(round->tasks, TaskPool(kTasks, 7).draw(3));
  EXPECT_EQ(round->group_size, 4);
  scaler.observe(all_alike(0).play(*round));
  EXPECT_FALSE(scaler.next_round());
  EXPECT_EQ(scaler.step_size(), 1);
}

TEST(BatchScaler, ResamplesUntilEnoughGroupsHaveASignalOrItsRoundsAreUsedUp) {
  BatchScaler scaler({.prompts = 8, .group_size = 4, .resample = 10}, kTasks, 7);
  EXPECT_EQ(all_alike(0).step(scaler).rounds, 10);
  EXPECT_EQ(all_alike(0.5).step(scaler).rounds, 2);  // 7 of 8 groups have one, then some more
}

TEST(BatchScaler, AimsAtItsSignalWhateverTheSuccessRate) {
  for (const double p : {0.5, 0.05, 0.02, 0.005, 0.95}) {
    BatchScaler scaler(adaptive(), kTasks, 1);
    Agents world = all_alike(p);
    world.steps(scaler, 6);
    double signal = 0, rollouts = 0;
    for (int i = 0; i < 10; ++i) {
      const auto step = world.step(scaler);
      signal += step.signal / 10;
      rollouts += static_cast<double>(step.rollouts) / 10;
    }
    EXPECT_NEAR(signal, 32, 10) << p;
    EXPECT_NEAR(rollouts / (32 / (p * (1 - p))), 1, 0.4) << p;
  }
}

TEST(BatchScaler, GrowsWithinTheFirstStepUntilARareSuccessTeaches) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  Agents world = all_alike(0.004);
  const auto first = world.step(scaler);
  EXPECT_GT(first.rounds, 2);
  EXPECT_GT(first.signal, 0.7 * 32);
  EXPECT_LE(world.steps(scaler, 4).rounds, 2) << "the next steps begin where this one ended";
}

TEST(BatchScaler, StopsAtItsMostAndSaysSoInTheStepSize) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  const auto hopeless = all_alike(0).step(scaler);
  EXPECT_EQ(hopeless.rollouts, 16384);
  EXPECT_EQ(hopeless.step_size, 0.25);
  const auto rare = all_alike(0.0005).step(scaler);  // 8 of 32
  EXPECT_NEAR(rare.step_size, std::sqrt(rare.signal / 32), 1e-12);
  EXPECT_LT(rare.step_size, 0.8);
}

TEST(BatchScaler, NeverTakesMoreThanItsMost) {
  for (const std::int64_t tasks : {1, 2, 3, 40}) {
    for (const std::int64_t most : {384, 640, 1000}) {
      BatchOptions options = adaptive();
      options.adaptive.min_rollouts = 32;
      options.adaptive.max_rollouts = most;
      BatchScaler scaler(options, tasks, 1);
      for (int i = 0; i < 3; ++i) {
        const auto rollouts = all_alike(0).step(scaler).rollouts;
        EXPECT_LE(rollouts, most) << tasks;
        EXPECT_GE(rollouts, most / 2) << tasks;
      }
    }
  }
}

TEST(BatchScaler, ShrinksByHalvesWhenSuccessesBecomeFrequent) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  Agents rare = all_alike(0.01), frequent = all_alike(0.5);
  std::int64_t before = rare.steps(scaler, 5).rollouts;
  EXPECT_GT(before, 2000);
  for (int i = 0; i < 12; ++i) {
    const std::int64_t now = frequent.step(scaler).rollouts;
    EXPECT_GE(now, std::min<std::int64_t>(before / 2, 128));
    before = now;
  }
  EXPECT_NEAR(static_cast<double>(before), 128, 32);  // 32 / 0.25
}

TEST(BatchScaler, GrowsAgainWhenSuccessesBecomeRare) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  Agents frequent = all_alike(0.5), rare = all_alike(0.01);
  EXPECT_LT(frequent.steps(scaler, 12).rollouts, 200);
  const auto fallen = rare.step(scaler);
  EXPECT_GT(fallen.rounds, 3) << "by rounds within the step, not by a step without a signal";
  EXPECT_GT(fallen.signal, 0.7 * 32);
  EXPECT_LE(rare.steps(scaler, 6).rounds, 2);
}

TEST(BatchScaler, MeetsItsSignalOnTasksOfAllDifficulties) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  Agents mixture([](std::int64_t task) { return 0.5 * std::pow(0.001, (task % 100) / 99.0); });
  mixture.steps(scaler, 4);
  const std::int64_t begun = mixture.step(scaler).rollouts;
  double signal = 0, rollouts = 0;
  mixture.steps(scaler, 60);
  for (int i = 0; i < 20; ++i) {
    const auto step = mixture.step(scaler);
    signal += step.signal / 20;
    rollouts += static_cast<double>(step.rollouts) / 20;
  }
  EXPECT_NEAR(signal, 32, 10);
  EXPECT_LT(rollouts, static_cast<double>(begun)) << "it has found the tasks that teach";
}

TEST(BatchScaler, RaisesTheGroupOnlyWhereThereAreNoMoreTasks) {
  BatchScaler many(adaptive(), 100000, 1), few(adaptive(), 20, 1);
  Agents world = all_alike(0.01);
  world.steps(many, 4);
  world.steps(few, 4);
  EXPECT_EQ(many.next_round()->group_size, 16);
  EXPECT_EQ(few.next_round()->group_size, 256);
}

TEST(BatchScaler, DefersWhatFailsAndRetiresWhatIsSolvedUntilTheyAreTriedAgain) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  Agents world([](std::int64_t task) { return task % 4 == 0 ? 0.5 : task % 4 == 1 ? 1 : 0.0; });
  world.steps(scaler, 40);
  const TaskCounts counts = scaler.task_counts();
  EXPECT_EQ(counts.tried, kTasks);
  EXPECT_NEAR(static_cast<double>(counts.deferred), kTasks / 2.0, 0.1 * kTasks);
  EXPECT_NEAR(static_cast<double>(counts.retired), kTasks / 4.0, 0.1 * kTasks);
  // All can be solved half the time now: whatever was deferred comes up again and is found out.
  Agents learnt([](std::int64_t) { return 0.5; });
  learnt.steps(scaler, 200);
  EXPECT_LT(scaler.task_counts().deferred + scaler.task_counts().retired, kTasks / 10);
}

TEST(BatchScaler, DefersNothingWhereTasksAreDrawnAlike) {
  BatchOptions options = adaptive();
  options.adaptive.select_tasks = false;
  BatchScaler scaler(options, kTasks, 1);
  Agents world([](std::int64_t task) { return task % 2 == 0 ? 0.5 : 0.0; });
  world.steps(scaler, 40);
  EXPECT_GT(scaler.task_counts().tried, 0);
  EXPECT_EQ(scaler.task_counts().deferred, 0);
}

TEST(BatchScaler, DrawsTasksWhereASuccessIsNeitherSureNorUnlikely) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  Agents world([](std::int64_t task) { return task % 4 == 0 ? 0.5 : task % 4 == 1 ? 1 : 0.0; });
  world.steps(scaler, 200);
  std::map<std::int64_t, double> drawn;
  for (int i = 0; i < 40; ++i) {
    while (const auto round = scaler.next_round()) {
      for (const auto task : round->tasks) ++drawn[task % 4];
      scaler.observe(world.play(*round));
    }
    scaler.end_step();
  }
  EXPECT_GT(drawn[0], 2 * drawn[1]);
  EXPECT_GT(drawn[0], 2 * drawn[2]);
  EXPECT_GT(drawn[1], 0) << "what was solved may be forgotten";
  EXPECT_GT(drawn[3], 0) << "what was not may be solved one day";
}

TEST(BatchScaler, GoesOnFromItsStateAsIfNothingHadHappened) {
  BatchScaler one(adaptive(), kTasks, 1);
  Agents world([](std::int64_t task) { return 0.3 / static_cast<double>(1 + task % 7); });
  world.steps(one, 5);
  BatchScaler other(adaptive(), kTasks, 1);
  other.restore(one.state());
  EXPECT_EQ(other.state(), one.state());
  Agents same = world;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(world.step(one).rollouts, same.step(other).rollouts);
    EXPECT_EQ(other.state(), one.state());
  }
}

// The rounds of so many steps, `lag` of them planned ahead; the state goes through its text before
// each.
std::vector<BatchScaler::Round> rounds_of(const BatchOptions& options, std::int64_t lag, int steps,
                                          Agents world) {
  BatchScaler scaler(options, kTasks, 1);
  std::vector<BatchScaler::Round> rounds;
  while (steps-- > 0) {
    BatchScaler resumed(options, kTasks, 1);
    resumed.restore(scaler.state());
    scaler = resumed;
    scaler.plan_ahead(lag + 1);
    EXPECT_EQ(std::ssize(scaler.ahead()), lag + 1);
    while (const auto round = scaler.next_round()) {
      rounds.push_back(*round);
      scaler.observe(world.play(*round));
    }
    scaler.end_step();
  }
  return rounds;
}

TEST(BatchScaler, PlansFixedStepsAheadAsItWouldOneByOne) {
  const BatchOptions fixed{.prompts = 7, .group_size = 4};
  const auto in_turn = rounds_of(fixed, 0, 9, all_alike(0.1));
  const auto ahead = rounds_of(fixed, 3, 9, all_alike(0.1));
  ASSERT_EQ(ahead.size(), 9U);
  for (std::size_t i = 0; i < ahead.size(); ++i) {
    EXPECT_EQ(ahead[i].tasks, in_turn[i].tasks);
    EXPECT_EQ(ahead[i].first_group, 7 * static_cast<std::int64_t>(i));
  }
}

TEST(BatchScaler, PlansAheadByWhatItKnowsAndTopsUpLater) {
  const auto rounds = rounds_of(adaptive(), 1, 12, all_alike(0.01));
  EXPECT_EQ(rounds[0].rollouts(), 256);
  EXPECT_EQ(rounds[1].first_group, 2 * 16) << "the first top-up comes behind the second step's";
  std::set<std::int64_t> groups;
  std::int64_t planned = 0;
  for (const auto& round : rounds) {
    planned += std::ssize(round.tasks);
    for (std::int64_t g = 0; g < std::ssize(round.tasks); ++g) groups.insert(round.first_group + g);
  }
  EXPECT_EQ(std::ssize(groups), planned) << "no number is given twice";
  EXPECT_GT(rounds.back().rollouts(), 1000) << "it comes to the size that the signal wants";
}

TEST(BatchScaler, RefusesAStateThatIsCutShort) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  all_alike(0.1).steps(scaler, 2);
  scaler.plan_ahead(2);
  const std::string whole = scaler.state();
  for (std::size_t size = 0; size < whole.size(); size += 7)
    EXPECT_THROW(scaler.restore(whole.substr(0, size)), Error) << size;
  EXPECT_EQ(scaler.state(), whole);
}

TEST(BatchScaler, LooksAtGroupsWithoutAnyGradedRollout) {
  BatchScaler scaler(adaptive(), kTasks, 1);
  const auto round = scaler.next_round();
  std::vector<GroupOutcome> groups;
  for (const auto task : round->tasks) groups.push_back({task, {}});
  scaler.observe(groups);
  EXPECT_EQ(scaler.signal(), 0);
  EXPECT_TRUE(scaler.next_round());
}

TEST(BatchScaler, TakesRewardsOfAnyRange) {
  BatchScaler zero_to_one(adaptive(), kTasks, 1), minus_to_five(adaptive(), kTasks, 1);
  Agents world = all_alike(0.2);
  const auto round = zero_to_one.next_round();
  minus_to_five.next_round();
  auto groups = world.play(*round);
  zero_to_one.observe(groups);
  for (auto& group : groups)
    for (double& r : group.rewards) r = r * 10 - 5;
  minus_to_five.observe(groups);
  EXPECT_NEAR(zero_to_one.signal(), minus_to_five.signal(), 1e-9);
}

TEST(TaskBeliefs, ComeBackToWhatOthersDo) {
  TaskBeliefs beliefs;
  beliefs.add(1, 0, 16);
  beliefs.add(2, 8, 8);
  EXPECT_LT(beliefs.rate(1), 0.1);
  EXPECT_LT(beliefs.signal(1), beliefs.signal(2));
  for (int i = 0; i < 500; ++i) {
    beliefs.add(3, 4, 4);
    beliefs.update();
  }
  EXPECT_NEAR(beliefs.rate(1), 0.5, 0.01);
}

TEST(TaskBeliefs, ExpectTheSignalOfTheirPosterior) {
  // One rollout's worth of 1 in 2, and 3 of 4: Beta(3.5, 1.5), whose mean of p (1 - p) is 0.175.
  TaskBeliefs beliefs;
  beliefs.restore({.tasks = {{0, {3, 1, 0}}}, .recent = {1, 1, 0}, .updates = 0});
  EXPECT_NEAR(beliefs.signal(0), 3.5 * 1.5 / (5 * 6), 1e-12);
  EXPECT_NEAR(beliefs.rate(0), 0.7, 1e-12);
}

}  // namespace
}  // namespace rollcall
