// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "slurm/site_options.h"
#include "slurm/sweep.h"

namespace rollcall {

// One `rollcall submit`. Paths are absolute.
struct BatchJob {
  std::string name;     // of the run
  std::string program;  // rollcall itself
  std::string run_file;
  std::string folder;    // where the job starts, and relative paths of the run with it
  std::string runs_dir;  // the folder of all runs; those of this job have a folder log/
  int learners = 1, workers = 1;
  std::chrono::milliseconds stop_before{0};  // the limit; 0: the run is not asked to stop
  std::vector<std::string> overrides;        // --set
  std::vector<SweepPoint> sweep;             // empty: one run
  bool chain = false;  // jobs of one name follow each other instead of requeueing
};

// The name of the run of one point: "ledger-3".
std::string run_name(const BatchJob&, const SweepPoint&);
// The log file of Slurm, with its patterns (%j, %A, %a) for the job's numbers.
std::string log_pattern(const BatchJob&);

// The text of a file for sbatch. Throws an input Error for what cannot be quoted safely, and for a
// site that the run does not fit.
std::string batch_script(const BatchJob&, const SiteOptions&);

// "1-02:30:00", as sbatch takes it; seconds are rounded up.
std::string slurm_time(std::chrono::milliseconds);

}  // namespace rollcall
