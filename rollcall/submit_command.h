// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

#include "rollcall/commands.h"
#include "slurm/site_options.h"

namespace rollcall {

struct SubmitArguments {
  RunArguments run;
  std::filesystem::path site;       // empty: $ROLLCALL_SITE, else the user's own, else the defaults
  std::vector<std::string> sweeps;  // K=v1,v2
  bool dry_run = false;
  int chain = 0;  // jobs that follow each other; 0: one, which requeues itself
};

// The site file that is `given`, else that of $ROLLCALL_SITE, else the user's own, else the
// defaults. Throws Error.
SiteOptions site_options(const std::filesystem::path& given);

// Writes runs/<name>/submit.sbatch and submits it, or prints it if this is a dry run, which changes
// nothing. What was submitted and how to watch it go to `out`, remarks to `remarks`. Returns the
// exit code; throws Error.
int run_submit(const SubmitArguments&, std::ostream& out, std::ostream& remarks);

}  // namespace rollcall
