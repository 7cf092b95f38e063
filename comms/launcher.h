// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <vector>

namespace rollcall {

// What decides the flags of mpirun.
struct LaunchSite {
  bool root = false;                 // mpirun refuses to run as root unless told
  bool single_host = true;           // no allocation or host file names other hosts
  bool shared_memory_copies = true;  // a process may read another's memory (CMA)
};

// Looks at this process, its environment and the kernel.
LaunchSite inspect_launch_site();

// `mpirun FLAGS -n ranks PROGRAM ARGUMENTS`. What the user set by an OMPI_MCA_* variable stays:
// `is_set` says whether an environment variable exists.
std::vector<std::string> mpirun_command(const LaunchSite&, int ranks, const std::string& program,
                                        std::span<const std::string> arguments,
                                        bool (*is_set)(const char* variable));

}  // namespace rollcall
