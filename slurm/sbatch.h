// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace rollcall {

// Hands a file to the sbatch on PATH and returns the job's id. Blocks until Slurm has answered.
// Throws Error with what sbatch said.
std::string submit_to_slurm(const std::filesystem::path& script);

}  // namespace rollcall
