// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/run_config.h"
#include "rollcall/doctor/finding.h"
#include "slurm/site_options.h"

namespace rollcall {

// What the doctor looks at. Without a run file it looks at the machine and the current folder.
struct Patient {
  std::string program;  // this binary
  std::string run_file;
  std::optional<RunConfig> config;
  std::int64_t parameters = 0;  // of the config's model; 0: unknown
  std::filesystem::path
      folder;  // where runs go: run.dir, or the nearest of its parents that exists
  SiteOptions site;
};

// Checks. Each may block, crash or throw Error: see run_check().
std::vector<Finding> check_launcher(const Patient&);
std::vector<Finding> check_cores(const Patient&);
std::vector<Finding> check_shared_memory(const Patient&);
std::vector<Finding> check_gpu(const Patient&);
std::vector<Finding> check_open_files(const Patient&);
std::vector<Finding> check_slurm(const Patient&);
std::vector<Finding> check_journal_folder(const Patient&);
std::vector<Finding> check_disk_space(const Patient&);
std::vector<Finding> check_model(const Patient&);
// `what` as EndpointAddress has it.
std::vector<Finding> check_endpoint(const Patient&, const std::string& what,
                                    const std::string& url);

// The other side of check_journal_folder(), in a process of its own: prints the length of the
// dataset of a file that is being written. Returns an exit code; throws Error.
int read_probe_journal(const std::filesystem::path& file);

// Their parts that need no machine.

// The transports of which Open MPI said (btl_base_verbose) that it uses them, by name, without
// repetition, joined by ", ".
std::string transports_in(const std::string& output);
// Files that a worker may have open at once.
std::int64_t open_files_needed(const RunConfig&);
// Bytes of the checkpoints that are kept while one more is written, and of the export.
std::int64_t disk_needed(const RunConfig&, std::int64_t parameters);
// The name of a file system by statfs()'s f_type, and what to know of it where journals are
// concerned (empty: nothing). An unknown one is named by its number.
struct FileSystem {
  std::string name;
  std::string advice;
};
FileSystem file_system_of(std::int64_t type);
// The value of `Requeue=` or `JobRequeue = ` in what scontrol shows; nothing if it is not there.
std::optional<bool> requeue_in(std::string_view shown);
// "1.5 GB"; powers of 1000.
std::string size_text(std::int64_t bytes);

}  // namespace rollcall
