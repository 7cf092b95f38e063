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

// Each returns the process's exit code; errors are thrown.
int train_command(const RunArguments&);
int roles_command(const RunArguments&);  // train --roles: prints which rank does what
int eval_command(const RunArguments&,
                 const std::filesystem::path& checkpoint);  // empty: model.path
int sft_command(const RunArguments&);
int export_command(const std::filesystem::path& source, const std::filesystem::path& out,
                   const std::string& dtype);
int doctor_command();

struct LogitsArguments {
  std::filesystem::path dir;
  std::vector<std::int64_t> ids;
  std::string dtype = "float32";  // of the weights
  double temperature = 1.0;
  bool mask_padding = false;
  std::vector<std::string> gradients;
  std::int64_t greedy = 0;
};
int model_logits_command(const LogitsArguments&);

}  // namespace rollcall
