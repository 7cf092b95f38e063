// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>

#include "model/cpu_kernels.h"
#include "rollcall/commands.h"
#include "rollcall/version.h"

namespace rollcall {
namespace {

// Full path of a program in PATH, or nothing.
std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const auto candidate = std::filesystem::path(folder) / name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate.string();
  }
  return {};
}

void line(const char* what, bool works, const std::string& detail) {
  std::printf("%-22s %-8s %s\n", what, works ? "ok" : "missing", detail.c_str());
}

void check_library(const char* what, const char* library, const char* how) {
  void* handle = ::dlopen(library, RTLD_LAZY | RTLD_LOCAL);
  line(what, handle != nullptr, handle != nullptr ? library : how);
  if (handle != nullptr) ::dlclose(handle);
}

}  // namespace

int doctor_command() {
  std::printf("rollcall %s, torch %s, CPU kernels %s\n", kVersion, kTorchVersion,
              cpu_kernels().isa);
  const std::string mpirun = find_program("mpirun"), sbatch = find_program("sbatch");
  line("MPI launcher", !mpirun.empty(), mpirun.empty() ? "apt-get install openmpi-bin" : mpirun);
  line("Slurm", !sbatch.empty(),
       sbatch.empty() ? "not on this machine; runs start under mpirun" : sbatch);
  check_library("NVIDIA driver", "libcuda.so.1", "no GPU driver here; runs use the CPU");
  check_library("CUDA plugin", "librollcall_cuda.so",
                "needed on GPUs only; built when CMake finds a CUDA toolkit (ROLLCALL_CUDA=ON)");
  return mpirun.empty() ? 1 : 0;
}

}  // namespace rollcall
