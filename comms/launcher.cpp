// SPDX-License-Identifier: Apache-2.0
#include "comms/launcher.h"

#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "comms/world.h"

namespace rollcall {
namespace {

bool is_set(const char* variable) { return std::getenv(variable) != nullptr; }

// A child tries to read its parent, which needs the same right as reading a sibling rank.
bool may_read_other_processes() {
  const char source = 'x';
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return false;
  if (child == 0) {
    char copy = 0;
    iovec to{&copy, 1};
    iovec from{const_cast<char*>(&source), 1};
    ::_exit(::process_vm_readv(parent, &to, 1, &from, 1, 0) == 1 ? 0 : 1);
  }
  int status = 1;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

LaunchSite inspect_launch_site() {
  constexpr std::array kSeveralHosts = {"SLURM_JOB_ID", "PBS_NODEFILE", "LSB_HOSTS", "PE_HOSTFILE",
                                        "OMPI_MCA_orte_default_hostfile"};
  LaunchSite site;
  site.root = ::geteuid() == 0;
  site.single_host = std::none_of(kSeveralHosts.begin(), kSeveralHosts.end(), is_set);
  site.shared_memory_copies = may_read_other_processes();
  return site;
}

std::vector<std::string> mpirun_command(const LaunchSite& site, int ranks,
                                        const std::string& program,
                                        std::span<const std::string> arguments,
                                        bool (*variable_is_set)(const char*)) {
  std::vector<std::string> command{"mpirun"};
  if (site.root) command.push_back("--allow-run-as-root");
  command.insert(command.end(), {"--oversubscribe", "--bind-to", "none", "--enable-recovery"});
  const auto set = [&](const char* parameter, const char* value) {
    if (variable_is_set((std::string("OMPI_MCA_") + parameter).c_str())) return;
    command.insert(command.end(), {"--mca", parameter, value});
  };
  // Other point-to-point layers crash the survivors of a dead rank.
  command.insert(command.end(), {"--mca", "pml", "ob1"});
  if (site.single_host) set("btl", "self,vader");
  if (!site.shared_memory_copies) set("btl_vader_single_copy_mechanism", "none");
  command.insert(command.end(), {"-n", std::to_string(ranks), program});
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

bool under_launcher() {
  return is_set("OMPI_COMM_WORLD_SIZE") || is_set("PMIX_RANK") || is_set("PMI_SIZE");
}

void exec_under_mpirun(int ranks, int argc, char** argv) {
  std::error_code unreadable;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", unreadable);
  const std::string program = unreadable ? argv[0] : self.string();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  std::vector<std::string> command =
      mpirun_command(inspect_launch_site(), ranks, program, arguments, is_set);
  std::vector<char*> pointers;
  for (std::string& word : command) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  throw Error(std::string("cannot start mpirun: ") + std::strerror(errno),
              "install Open MPI (Debian: openmpi-bin) or put its bin folder on PATH");
}

}  // namespace rollcall
