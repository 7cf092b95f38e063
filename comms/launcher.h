// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

// What decides the flags of mpirun.
struct LaunchSite {
  bool root = false;                        // mpirun refuses to run as root unless told
  bool single_host = true;                  // no allocation or host file names other hosts
  bool shared_memory_copies = true;         // a process may read another's memory (CMA)
  std::vector<std::string> variables = {};  // of the environment, to be taken to other hosts
  std::string scratch = {};                 // where mpirun may keep files; empty: where it likes
};

// Looks at this process, its environment and the kernel.
LaunchSite inspect_launch_site();

// Names of the environment variables that begin so.
std::vector<std::string> variables_named(std::string_view prefix);

// Whether an environment variable exists.
bool is_set(const char* variable);

// `mpirun FLAGS -n ranks PROGRAM ARGUMENTS`. What the user set by an OMPI_MCA_* variable stays:
// `is_set` says whether an environment variable exists.
std::vector<std::string> mpirun_command(const LaunchSite&, int ranks, const std::string& program,
                                        std::span<const std::string> arguments,
                                        bool (*is_set)(const char* variable));

// Ends the job if the parent of this process is mpirun. False: it is not.
bool end_parent_mpirun();

// Copies a stream of bytes, without the lines by which Open MPI comments on what we do on purpose.
class LineFilter {
 public:
  // What may be shown of everything added so far.
  std::string add(const std::string& bytes);
  // The rest: an unfinished line.
  std::string flush();

 private:
  std::string unfinished_;
};

}  // namespace rollcall
