// SPDX-License-Identifier: Apache-2.0
#include "comms/launcher.h"

#include <signal.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

#include "comms/lifeline.h"
#include "comms/world.h"

namespace rollcall {
namespace {

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

std::vector<std::string> variables_named(std::string_view prefix) {
  std::vector<std::string> names;
  for (char** entry = ::environ; *entry != nullptr; ++entry) {
    const std::string_view name = std::string_view(*entry).substr(0, std::strcspn(*entry, "="));
    if (name.starts_with(prefix)) names.emplace_back(name);
  }
  return names;
}

bool is_set(const char* variable) { return std::getenv(variable) != nullptr; }

LaunchSite inspect_launch_site() {
  constexpr std::array kSeveralHosts = {"SLURM_JOB_ID", "PBS_NODEFILE", "LSB_HOSTS", "PE_HOSTFILE",
                                        "OMPI_MCA_orte_default_hostfile"};
  LaunchSite site;
  site.root = ::geteuid() == 0;
  site.single_host = std::none_of(kSeveralHosts.begin(), kSeveralHosts.end(), is_set);
  site.shared_memory_copies = may_read_other_processes();
  if (!site.single_host) site.variables = variables_named("ROLLCALL_");
  std::erase(site.variables, kLifelineVariable);
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
  if (!site.single_host) command.insert(command.end(), {"-x", kLifelineVariable});
  for (const std::string& name : site.variables) command.insert(command.end(), {"-x", name});
  if (!site.shared_memory_copies) set("btl_vader_single_copy_mechanism", "none");
  if (!site.scratch.empty()) set("orte_tmpdir_base", site.scratch.c_str());
  command.insert(command.end(), {"-n", std::to_string(ranks), program});
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

// A shell inside a job step, and a job submitted from one, see the variables of a step of one task.
bool under_launcher() {
  const auto more_than_one = [](const char* variable) {
    const char* value = std::getenv(variable);
    return value != nullptr && std::atoi(value) > 1;
  };
  return is_set("OMPI_COMM_WORLD_SIZE") || more_than_one("PMI_SIZE") ||
         (is_set("PMIX_RANK") && more_than_one("SLURM_STEP_NUM_TASKS"));
}

bool end_parent_mpirun() {
  const pid_t parent = ::getppid();
  std::string name;
  std::ifstream("/proc/" + std::to_string(parent) + "/comm") >> name;
  if (name != "mpirun" && name != "mpiexec" && name != "orterun" && name != "prterun") return false;
  return ::kill(parent, SIGTERM) == 0;
}

std::string LineFilter::add(const std::string& bytes) {
  std::string shown;
  unfinished_ += bytes;
  for (std::size_t end = 0; (end = unfinished_.find('\n')) != std::string::npos;) {
    const std::string line = unfinished_.substr(0, end + 1);
    unfinished_.erase(0, end + 1);
    const bool noise = line.find("PMIX ERROR: BAD-PARAM") != std::string::npos ||
                       line.starts_with("mpirun: Forwarding signal");
    if (!noise) shown += line;
  }
  return shown;
}

std::string LineFilter::flush() { return std::exchange(unfinished_, {}); }

}  // namespace rollcall
