// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "trainer/journal.h"
#include "trainer/metric_names.h"
#include "trainer/metrics.h"
#include "trainer/result.h"

namespace rollcall {

// A made-up run of an agent that learns, as `rollcall train` would leave it.
struct SyntheticRun {
  std::int64_t steps = 120, groups = 8, members = 8, tasks = 32, samples = 4;
};

inline ToolEvent synthetic_call(std::mt19937_64& random, int turn, double skill,
                                std::int64_t task) {
  std::exponential_distribution<double> tail(12.0);
  const bool search = random() % 3 == 0;
  ToolEvent event;
  event.turn = turn;
  event.call_id = "call_" + std::to_string(random() % 100000);
  event.name = search ? "search_orders" : "get_invoice";
  event.arguments = search ? R"({"customer": "Müller & Söhne", "open": true})"
                           : R"({"number": "A-)" + std::to_string(1000 + task) + "\"}";
  event.is_error = std::uniform_real_distribution<double>()(random) > 0.75 + 0.23 * skill;
  event.status = event.is_error && random() % 8 == 0 ? 503 : 200;
  event.retries = event.status == 503 ? 2 : 0;
  event.output =
      event.is_error
          ? R"({"error": "no such invoice; numbers look like A-1234"})"
          : R"({"number": "A-1012", "total": 412.50, "lines": [{"item": "<b>chair</b>", "n": 3}]})";
  event.latency_s = 0.03 + tail(random);
  return event;
}

inline Trajectory synthetic_rollout(std::mt19937_64& random, const Assignment& assignment,
                                    double skill) {
  std::uniform_real_distribution<double> uniform;
  Trajectory t;
  t.assignment = assignment;
  t.trace_id =
      "trace_5f0c2d1e-93b4-4c55-8a0e-" + std::to_string(100000000000 + random() % 899999999999);
  const double ease = 0.25 + 1.5 * static_cast<double>(assignment.task_row * 7919 % 100) / 100;
  const bool passed = uniform(random) < 1 - std::pow(1 - skill, ease);
  t.turns = 2 + static_cast<std::int32_t>(random() % (passed ? 3 : 7));
  for (int turn = 0; turn + 1 < t.turns; ++turn) {
    t.tool_events.push_back(synthetic_call(random, turn, skill, assignment.task_row));
    t.wall_time_s += t.tool_events.back().latency_s;
  }
  const std::size_t length = 300 + random() % 400 + 60 * static_cast<std::size_t>(t.turns);
  t.tokens.assign(length, 7);
  t.is_action.assign(length, 1);
  t.behavior_logprobs.assign(length, -0.5F);
  t.token_version.assign(length, static_cast<std::int32_t>(assignment.version));
  t.prompt_length = 200;
  t.generate_time_s = 0.4 + 0.004 * static_cast<double>(length) * (0.8 + 0.4 * uniform(random));
  t.grade.latency_s = 0.05;
  t.wall_time_s += t.generate_time_s + t.grade.latency_s;
  t.end = passed || random() % 3 != 0 ? EndReason::kFinished : EndReason::kMaxTurns;
  if (random() % 80 == 0) {
    t.fault = random() % 2 == 0 ? FaultReason::kToolFault : FaultReason::kWorkerLost;
    t.fault_detail = t.fault == FaultReason::kToolFault ? "get_invoice: HTTP 503 after 3 tries"
                                                        : "worker 3 fell silent";
    t.end = EndReason::kNone;
    return t;
  }
  t.grade.score = passed ? 1 : random() % 3 == 0 ? 0.4 : 0;
  t.grade.reward = t.grade.score;
  t.grade.passed = passed;
  t.grade.sub_rewards = {{"total", passed ? 1.0 : 0.0}, {"format", 1.0}};
  t.grade.explanation = passed ? "total and currency match" : "expected 412.50 EUR, got 41.25 EUR";
  t.final_text = passed ? "Invoice A-1012 totals **412.50 €**, due on 2026-12-01."
                        : "The total is 41.25 €. <script>alert(1)</script>";
  return t;
}

inline MetricList synthetic_metrics(std::mt19937_64& random, std::int64_t step) {
  std::normal_distribution<double> noise;
  const double rollout = 9 + noise(random) * 0.6;
  return {{metric::kSecondsStep, rollout + 4.4},
          {metric::kSecondsRollout, rollout},
          {metric::kSecondsUpdate, 3.9},
          {metric::kSecondsPublish, 0.3},
          {metric::kSecondsJournal, 0.1},
          {metric::kTokensSampled, 42000 + 1000 * noise(random)},
          {metric::kTokensPerSecond, 42000 / rollout},
          {metric::kEntropyMean,
           0.25 + 0.6 * std::exp(-static_cast<double>(step) / 50) + 0.02 * noise(random)},
          {metric::kLogprobGapMax, 0.02 + 0.004 * std::abs(noise(random))},
          {metric::kLogprobGapMean, 0.002},
          {metric::kGradNormL2, 0.8 + 0.2 * std::abs(noise(random))},
          {metric::kSkippedUpdates, 0}};
}

inline double synthetic_skill(std::int64_t step, std::int64_t steps) {
  return 0.12 +
         0.6 / (1 + std::exp(-8 * (static_cast<double>(step) / static_cast<double>(steps) - 0.4)));
}

inline void write_synthetic_run(const std::filesystem::path& run_dir, const SyntheticRun& run) {
  std::mt19937_64 random(3);
  std::filesystem::create_directories(run_dir);
  std::ofstream(run_dir / "config.yaml")
      << "run: {name: ledger, seed: 7}\ngrader: {pass_threshold: 1}\n"
         "tools:\n  - {name: get_invoice, headers: {authorization: \"Bearer ${TOOL_KEY}\"}}\n";
  Journal journal(run_dir / "journal" / "learner-0.h5", R"({"run":"ledger"})");
  MetricsLog metrics(run_dir, 0);
  const auto evaluate = [&](std::int64_t step) {
    for (std::int64_t i = 0; i < run.tasks * run.samples; ++i) {
      journal.append(synthetic_rollout(random,
                                       {.step = step,
                                        .group = 1000000 + i / run.samples,
                                        .task_row = i / run.samples,
                                        .version = step,
                                        .split = Split::kValid},
                                       synthetic_skill(step, run.steps)));
    }
  };
  evaluate(0);
  for (std::int64_t step = 0; step < run.steps; ++step) {
    for (std::int64_t i = 0; i < run.groups * run.members; ++i) {
      const std::int64_t group = step * run.groups + i / run.members;
      journal.append(synthetic_rollout(random,
                                       {.step = step,
                                        .group = group,
                                        .member = static_cast<std::int32_t>(i % run.members),
                                        .task_row = group % 50,
                                        .version = step},
                                       synthetic_skill(step, run.steps)));
    }
    metrics.append(step + 1, synthetic_metrics(random, step));
    if ((step + 1) % std::max<std::int64_t>(1, run.steps / 6) == 0 && step + 1 < run.steps)
      evaluate(step + 1);
  }
  evaluate(run.steps);
  RunResult result;
  result.status = RunStatus::kDone;
  result.step = run.steps;
  write_result(run_dir, result);
}

}  // namespace rollcall
