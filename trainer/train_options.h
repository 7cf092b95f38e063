// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace rollcall {

struct RunOptions {  // run:
  std::string name;  // required
  std::string dir = "runs";
  std::uint64_t seed = 0;
  std::int64_t steps = 100;  // >= 0
};

struct DataOptions {  // data:
  std::string train;  // JSONL
  std::string valid;  // JSONL; empty: no evaluation
};

struct BatchOptions {            // batch:
  std::int64_t prompts = 64;     // groups per step, >= 1
  std::int64_t group_size = 16;  // rollouts per group, >= 2
};

// `algorithm:` every value of the profile agent_sparse_v1.
struct AlgorithmOptions {
  std::string profile = "agent_sparse_v1";
  std::string advantage = "rloo_batch_std";
  std::string loss = "cispo";
  double clip_low = 1.0;  // ratio kept in [1 - clip_low, 1 + clip_high]
  double clip_high = 4.0;
  double dual_clip = 0;  // ppo_clip: bound at -dual_clip * A where A < 0; 0: off
  std::string aggregation = "prompt_mean";
  double aggregation_constant = 1;  // divisor of seq_mean_token_sum_const
  double learning_rate = 1e-6;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-15;
  double weight_decay = 0.01;
  std::int64_t warmup_steps = 10;
  double max_grad_norm = 1.0;             // global L2; 0: no clipping
  std::int64_t microbatch_tokens = 8192;  // packed tokens per forward/backward
  bool activation_checkpointing = false;  // compute layers again in the backward pass
};

struct AlarmOptions {         // alarms: each ends the run with exit code 4; 0: off
  double logprob_gap = 0.05;  // nats, mean over a step's sampled tokens
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
