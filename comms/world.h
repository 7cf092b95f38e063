// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "comms/error.h"

namespace rollcall {

// The MPI program this process is a rank of. One per process; single thread (the main one).
// MPI errors come back as codes and become Error.
class World {
 public:
  World(int* argc, char*** argv);  // MPI_Init_thread(FUNNELED)
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& host() const { return host_; }

  // Ends this process after the caller's own flushes, without MPI_Finalize: with a dead peer
  // Finalize can hang for good, and mpirun --enable-recovery accepts a plain exit.
  [[noreturn]] void finish(ExitCode code);
  // Ends every rank of the job. For errors that no rank can go on from. (MPI_Abort alone ends only
  // the caller under --enable-recovery; on a remote host the others notice by their timeouts.)
  [[noreturn]] void abort(ExitCode code);

 private:
  int rank_ = 0;
  int size_ = 1;
  std::string host_;
};

// True if this process was started by an MPI launcher (mpirun, srun).
bool under_launcher();

// Runs `mpirun ... -n ranks PROGRAM ARGS` in place of this process, with the flags that let a
// worker die without ending the job, and ends with the ExitCode that rank 0 ended with (mpirun's
// own says nothing). SIGINT, SIGTERM, SIGHUP and SIGUSR1 become a stop request (SIGUSR1) for all
// ranks, a later one ends the job. Does not return; throws Error if mpirun is missing.
[[noreturn]] void exec_under_mpirun(int ranks, int argc, char** argv);

}  // namespace rollcall
