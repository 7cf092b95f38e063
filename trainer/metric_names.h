// SPDX-License-Identifier: Apache-2.0
#pragma once

// Keys of metrics.jsonl and TensorBoard tags, units in the names. The report reads what the
// training loop writes by these.
namespace rollcall::metric {

inline constexpr const char* kRewardMean = "reward_mean";
inline constexpr const char* kRewardMeanFirstRound = "reward_mean_first_round";
inline constexpr const char* kPassRate = "pass_rate";
inline constexpr const char* kGroups = "groups";
inline constexpr const char* kRounds = "rounds";
inline constexpr const char* kSignalMass = "signal_mass";
inline constexpr const char* kTasksTried = "tasks_tried";
inline constexpr const char* kTasksDeferred = "tasks_deferred";
inline constexpr const char* kTasksRetired = "tasks_retired";
inline constexpr const char* kGroupsSignal = "groups_signal";
inline constexpr const char* kGroupsAllZero = "groups_all_zero";
inline constexpr const char* kGroupsAllOne = "groups_all_one";
inline constexpr const char* kGroupsPassed = "groups_passed";
inline constexpr const char* kGroupsDropped = "groups_dropped";
inline constexpr const char* kRollouts = "rollouts";
inline constexpr const char* kFaults = "faults";
inline constexpr const char* kMasked = "masked";
inline constexpr const char* kConfirmed = "confirmed";
inline constexpr const char* kUnconfirmed = "unconfirmed";
inline constexpr const char* kConfirmFaults = "confirm_faults";
inline constexpr const char* kTokensSampled = "tokens_sampled";
inline constexpr const char* kTokensPerSecond = "tokens_per_second";
inline constexpr const char* kPrefixCacheHitRate = "prefix_cache_hit_rate";
inline constexpr const char* kToolCallsP50 = "tool_calls_p50";
inline constexpr const char* kToolCallsP95 = "tool_calls_p95";
// With "_p50" or "_p95" and whose it is behind it.
inline constexpr const char* kTurns = "turns";
inline constexpr const char* kTokens = "tokens";
inline constexpr const char* kToolCalls = "tool_calls";
inline constexpr const char* kRolloutSeconds = "rollout_seconds";
inline constexpr const char* kOfPassed = ".passed";
inline constexpr const char* kOfFailed = ".failed";
inline constexpr const char* kToolErrors = "tool_errors";
inline constexpr const char* kRolloutSecondsP50 = "rollout_seconds_p50";
inline constexpr const char* kRolloutSecondsP95 = "rollout_seconds_p95";
inline constexpr const char* kSecondsStep = "seconds_step";
inline constexpr const char* kSecondsRollout = "seconds_rollout";
inline constexpr const char* kSecondsUpdate = "seconds_update";
inline constexpr const char* kSecondsPublish = "seconds_publish";
inline constexpr const char* kSecondsGradientSum = "seconds_gradient_sum";
inline constexpr const char* kSecondsLoadMax = "seconds_load_max";
inline constexpr const char* kSecondsJournal = "seconds_journal";
inline constexpr const char* kLoss = "loss";
inline constexpr const char* kGradNormL2 = "grad_norm_l2";
inline constexpr const char* kLearningRate = "learning_rate";
inline constexpr const char* kLogprobGapMax = "logprob_gap_max";
inline constexpr const char* kLogprobGapMean = "logprob_gap_mean";
inline constexpr const char* kRatioMean = "ratio_mean";
inline constexpr const char* kMismatchK3Mean = "mismatch_k3_nats_mean";
inline constexpr const char* kMismatchChi2Mean = "mismatch_chi2_mean";
inline constexpr const char* kMismatchEssFraction = "mismatch_ess_fraction";
inline constexpr const char* kClipHighFraction = "clip_high_fraction";
inline constexpr const char* kClipLowFraction = "clip_low_fraction";
inline constexpr const char* kTokensRejected = "tokens_rejected";
inline constexpr const char* kTokensRejectedPositive = "tokens_rejected_positive";
inline constexpr const char* kAdvantageMean = "advantage_mean";
inline constexpr const char* kAdvantageStd = "advantage_std";
inline constexpr const char* kGradSignalSquared = "grad_signal_squared";
inline constexpr const char* kGradNoiseVariance = "grad_noise_variance";
inline constexpr const char* kSkippedUpdates = "skipped_updates";
inline constexpr const char* kWorkers = "workers";
inline constexpr const char* kWorkersLost = "workers_lost";
inline constexpr const char* kEntropyMean = "entropy_mean";
inline constexpr const char* kRewardStd = "reward_std";
inline constexpr const char* kLimitShare = "limit_share";
inline constexpr const char* kVoidTurnShare = "void_turn_share";
inline constexpr const char* kRewardLengthCorrelation = "reward_length_correlation";
inline constexpr const char* kRewardCallsCorrelation = "reward_calls_correlation";
inline constexpr const char* kOptimizerSteps = "optimizer_steps";
inline constexpr const char* kGradientSpikes = "gradient_spikes";
inline constexpr const char* kEvalSecondPassAt1 = "eval_second_pass_at_1";
inline constexpr const char* kCanaryPassRate = "canary_pass_rate";
// A dot and the rule's name follow: "alarm.entropy".
inline constexpr const char* kAlarm = "alarm";
inline constexpr const char* kReferenceKlPerToken = "reference_kl_nats_per_token";
inline constexpr const char* kRewardPenaltyMean = "reward_penalty_mean";
inline constexpr const char* kValueLoss = "value_loss";
inline constexpr const char* kExplainedVariance = "explained_variance";
inline constexpr const char* kValueMean = "value_mean";
inline constexpr const char* kReturnMean = "return_mean";
inline constexpr const char* kValueClipFraction = "value_clip_fraction";
inline constexpr const char* kCriticGradNormL2 = "critic_grad_norm_l2";
inline constexpr const char* kVersionLagMean = "version_lag_mean";
inline constexpr const char* kVersionLagMax = "version_lag_max";
inline constexpr const char* kMixedVersionShare = "mixed_version_share";
inline constexpr const char* kDiscardRewardGap = "discard_reward_gap";
inline constexpr const char* kDiscardRewardZ = "discard_reward_z";
// A dot and the endpoint's name follow: "endpoint_retries.tool.get".
inline constexpr const char* kEndpointSecondsWaited = "endpoint_seconds_waited";
inline constexpr const char* kEndpointOpenings = "endpoint_openings";
inline constexpr const char* kEndpointRetries = "endpoint_retries";
inline constexpr const char* kEvalPassAt1 = "eval_pass_at_1";
inline constexpr const char* kEvalPassAt = "eval_pass_at_";  // and k: 2, 4, .. samples
inline constexpr const char* kEvalTasks = "eval_tasks";
inline constexpr const char* kEvalGradedTasks = "eval_graded_tasks";
inline constexpr const char* kEvalFaults = "eval_faults";
inline constexpr const char* kEvalMasked = "eval_masked";

}  // namespace rollcall::metric
