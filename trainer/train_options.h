// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace rollcall {

struct RunOptions {  // run:
  std::string name;  // required
  std::string dir = "runs";
  std::uint64_t seed = 0;
  std::int64_t steps = 100;  // >= 0
};

struct DataOptions {     // data:
  std::string train;     // JSONL
  std::string valid;     // JSONL; empty: no evaluation
  std::string canaries;  // JSONL: tasks that cannot be solved, tried with each evaluation
};

struct AdaptiveOptions {              // batch.adaptive:
  double target_signal = 0;           // signal mass wanted of a step (counting.h); 0: off
  std::int64_t min_rollouts = 128;    // of a step
  std::int64_t max_rollouts = 16384;  // of a step
  bool top_up = true;                 // sample more within the step until the signal is there
  bool select_tasks = true;           // prefer tasks that are expected to give signal
};

struct BatchOptions {            // batch:
  std::int64_t prompts = 64;     // groups per step, >= 1; with `adaptive` of the first step
  std::int64_t group_size = 16;  // rollouts per group, >= 2; >= 1 with a critic
  std::int64_t resample = 1;     // most rounds of `prompts` groups until so many have signal, >= 1
  AdaptiveOptions adaptive = {};
};

// One correction between the sampler's policy mu and the learner's policy `old` at the start of the
// step, from rho = old / mu. Kinds and what the bounds mean: corrections.h.
enum class CorrectionKind { kTokenTis, kSeqTis, kSeqMask, kGeoMask, kK3Mask, kIcepop, kVeto };
struct Correction {
  CorrectionKind kind = CorrectionKind::kTokenTis;
  double low = 0;   // of geo_mask, icepop, veto
  double high = 0;  // upper bound; `cap` and `max` of the kinds that have one bound
};

struct CriticOptions {               // algorithm.critic: read where the advantage is gae
  std::string trunk = "own";         // a copy of the initial policy, or "shared": the policy's
  double learning_rate = 2e-6;       // after the warm-up; of the value head alone on a shared trunk
  std::int64_t pretrain_steps = 10;  // first steps in which the critic learns alone
  std::int64_t epochs = 1;           // of an own trunk, over each step's rollouts,
  std::int64_t minibatches = 4;      // in so many optimizer steps each
  double value_clip = 0.2;           // how far one step may move a value; 0: any
  double gamma = 1;
  double lambda_critic = 1;
  std::optional<double> lambda_policy;  // nothing: decoupled_lambda() of the answer's length
  double coefficient = 0.1;             // shared: of the value gradient in the trunk
};

struct KlSection {  // algorithm.kl: how far the policy may go from the one the run began with
  double coefficient = 0;          // 0: no reference policy is loaded
  std::string form = "k1_reward";  // or k2, k3, k3_weighted in the loss (kl.h)
};

// `algorithm:` every value of the profile agent_sparse_v1.
struct AlgorithmOptions {
  std::string profile = "agent_sparse_v1";
  std::string advantage = "rloo_batch_std";
  std::int64_t passk_k = 4;  // passk: rollouts of which the best counts, >= 1
  CriticOptions critic;
  std::string loss = "cispo";
  double clip_low = 1.0;  // ratio kept in [1 - clip_low, 1 + clip_high]
  double clip_high = 4.0;
  double dual_clip = 0;            // ppo_clip: bound at -dual_clip * A where A < 0; 0: off
  double divergence = 0.2;         // dppo_tv: largest |current - anchor| of a probability
  double ratio_cap = 20;           // dppo_tv
  double tau_positive = 1;         // sapo: temperature where A > 0
  double tau_negative = 1.05;      // sapo: where A <= 0
  std::string anchor = "rollout";  // whose log-probabilities the ratio is taken against, or "old"
  std::vector<Correction> corrections;
  KlSection kl;
  bool kl_in_loss() const { return kl.coefficient > 0 && kl.form != "k1_reward"; }
  std::string aggregation = "prompt_mean";
  double aggregation_constant = 1;   // divisor of seq_mean_token_sum_const
  std::string denominator = "kept";  // groups that the step's mean is over: with signal, or "all"
  double learning_rate = 1e-6;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-15;
  double weight_decay = 0.01;
  std::int64_t warmup_steps = 10;
  double max_grad_norm = 1.0;             // global L2; 0: no clipping
  std::int64_t epochs = 1;                // times that the policy goes through a step's rollouts
  std::int64_t minibatch_prompts = 0;     // groups of an optimizer step; 0: all of the step
  std::int64_t microbatch_tokens = 8192;  // packed tokens per forward/backward
  // Layers are computed again in the backward pass; none: if memory says so.
  std::optional<bool> activation_checkpointing{};
};

// Rollouts that others are compared with and nothing is learnt from (mask_loss in `rollout:`).
struct BaselineOnly {
  bool limits = false;      // is_limit()
  bool void_turns = false;  // has_void_turn()
};

enum class AlarmAction { kOff, kWarn, kStop };  // stop: after a checkpoint, with exit code 4
struct AlarmRule {
  double limit = 0;
  AlarmAction action = AlarmAction::kWarn;
};

struct AlarmOptions {           // alarms: 0: off
  double logprob_gap = 0.05;    // nats, mean over a step's sampled tokens; exit code 4
  double discard_share = 0.5;   // of a step's rollouts, lost to faults; exit code 4
  double discard_reward_z = 4;  // standard errors, see DiscardWatch; a warning
  double grad_norm = 10;        // times the usual one: the update is skipped, see GradientWatch
  // What AlarmWatch goes by.
  AlarmRule signal_share{0.1}, limit_share{0.1}, ess{0.3}, mismatch_k3{0.01}, clip{0.3},
      entropy{0.1}, reward_spread{0.5}, reward_jump{4}, canary{0}, second_grader{2};
};

struct CheckpointOptions {        // checkpoint:
  std::int64_t every_steps = 20;  // 0: only at the end
  int keep = 3;                   // newest checkpoints kept, >= 1
};

struct EvalOptions {             // eval:
  std::int64_t every_steps = 0;  // 0: only before and after training
  std::int64_t samples = 1;      // rollouts per held-out task
  std::int64_t tasks = 0;        // held-out tasks used, in file order; 0: all
};

struct SftOptions {            // sft:
  std::string demonstrations;  // JSONL rows with whole conversations in `messages`
  std::int64_t steps = 1000;
  std::int64_t batch = 32;  // demonstrations per step
  double learning_rate = 1e-3;
  std::int64_t warmup_steps = 50;
  double weight_decay = 0.01;
  std::uint64_t seed = 0;
  std::string out;            // Hugging Face directory to write
  std::string adapter_out;    // PEFT directory to write too, of a LoRA run; empty: none
  bool from_scratch = false;  // random weights of model.path's config.json
};

}  // namespace rollcall
