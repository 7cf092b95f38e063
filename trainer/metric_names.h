// SPDX-License-Identifier: Apache-2.0
#pragma once

// Names of the metrics of a step, as in metrics.jsonl, TensorBoard and the report.
namespace rollcall::metric {

// What was rolled out. Means and rates leave faulted rollouts out.
inline constexpr const char* kRewardMean = "reward_mean";
inline constexpr const char* kPassRate = "pass_rate";
inline constexpr const char* kGroups = "groups";
inline constexpr const char* kGroupsSignal = "groups_signal";     // rewards differ
inline constexpr const char* kGroupsAllZero = "groups_all_zero";  // no member passed
inline constexpr const char* kGroupsAllOne = "groups_all_one";    // every member passed
inline constexpr const char* kRollouts = "rollouts";
inline constexpr const char* kFaults = "faults";
inline constexpr const char* kTokensSampled = "tokens_sampled";
inline constexpr const char* kTokensPerSecond = "tokens_per_second";
inline constexpr const char* kToolCallsP50 = "tool_calls_p50";
inline constexpr const char* kToolCallsP95 = "tool_calls_p95";
inline constexpr const char* kToolErrors = "tool_errors";
inline constexpr const char* kRolloutSecondsP50 = "rollout_seconds_p50";
inline constexpr const char* kRolloutSecondsP95 = "rollout_seconds_p95";

// Where the time went.
inline constexpr const char* kStepSeconds = "step_seconds";
inline constexpr const char* kSecondsRollout = "seconds_rollout";
inline constexpr const char* kSecondsUpdate = "seconds_update";
inline constexpr const char* kSecondsPublish = "seconds_publish";
inline constexpr const char* kSecondsJournal = "seconds_journal";

// The update.
inline constexpr const char* kLoss = "loss";
inline constexpr const char* kGradNorm = "grad_norm";
inline constexpr const char* kLearningRate = "learning_rate";
inline constexpr const char* kLogprobGapMax = "logprob_gap_max";  // |sampler - learner|, nats
inline constexpr const char* kLogprobGapMean = "logprob_gap_mean";
inline constexpr const char* kRatioMean = "ratio_mean";
inline constexpr const char* kClipHighFraction = "clip_high_fraction";
inline constexpr const char* kSkippedUpdates = "skipped_updates";
inline constexpr const char* kEntropy = "entropy";  // nats a token

// Held-out evaluation; only in steps that evaluate.
inline constexpr const char* kEvalPassAt1 = "eval_pass_at_1";
inline constexpr const char* kEvalTasks = "eval_tasks";

}  // namespace rollcall::metric
