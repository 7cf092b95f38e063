// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace rollcall {

// What every command that reads a run file is given. argc and argv are the process's own, for
// starting its ranks.
struct RunArguments {
  std::filesystem::path run_file;
  std::vector<std::string> overrides;  // a.b.c=value
  int argc = 0;
  char** argv = nullptr;
};

// Each returns the process's exit code; errors are thrown. `requeue`: a Slurm job whose run was
// stopped by its deadline or a death goes back into the queue.
int train_command(const RunArguments&, bool requeue);
int roles_command(const RunArguments&);  // train --roles: prints which rank does what

struct EvalArguments {
  RunArguments run;
  std::filesystem::path checkpoint;  // model directory, run or checkpoint; empty: model.path
  std::filesystem::path baseline;    // likewise; empty: none
  bool allow_training_rows = false;  // in data.valid
  bool allow_differences = false;    // between how the policy was trained and this evaluation
  // What the command tells the ranks that it starts.
  std::string role;                 // "policy" or "baseline"
  std::filesystem::path model_dir;  // to sample from; empty: model.path
};
int eval_command(const EvalArguments&);

struct PreflightArguments {
  RunArguments run;
  std::int64_t tasks = 64, samples = 32;  // training tasks, and first rollouts of each
  std::int64_t max_rollouts = 8192;       // in all rounds
  int workers = 0;                        // that sample here; 0: as many as the run has
  double hours = 0;                       // that there are for the run; 0: any number
};
// 4 if the run should not be started.
int preflight_command(const PreflightArguments&);
int sft_command(const RunArguments&);

struct DoctorArguments {
  RunArguments run;  // without a run file: of the machine alone
  std::filesystem::path site;
  bool json = false;
  // Parts that the command starts itself by.
  bool ping = false;                 // as a rank
  std::filesystem::path probe_file;  // as a reader of what is being written
};
// 1 if something that a run needs does not work.
int doctor_command(const DoctorArguments&);

struct ExportArguments {
  std::filesystem::path source, out;  // source: a model directory or a run
  std::string dtype = "float32";
  std::int64_t max_shard_bytes = 0;  // 0: one file
  std::filesystem::path adapter;     // of a model: PEFT directory ...
  bool merge = false;                // ... that becomes part of the weights
  std::int64_t step = -1;            // of a run: the checkpoint; -1: the newest
  bool adapter_only = false;         // of a run: its adapter as a PEFT directory
};
int export_command(const ExportArguments&);

struct ReplayArguments {
  RunArguments run;  // for starting ranks; no run file
  std::filesystem::path run_dir;
  std::int64_t step = 0;  // the update that made policy version step + 1
  bool json = false;
};
// 1 if an update comes out otherwise than the run says.
int replay_command(const ReplayArguments&);

struct LogitsArguments {
  std::filesystem::path dir;
  std::filesystem::path adapter;  // PEFT directory; empty: none
  std::vector<std::int64_t> ids;
  std::string dtype = "float32";  // of the weights
  double temperature = 1.0;
  bool mask_padding = false;
  std::vector<std::string> gradients;
  std::int64_t greedy = 0;
};
int model_logits_command(const LogitsArguments&);

}  // namespace rollcall
