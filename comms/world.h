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
  // Ends every rank of the job. For errors that no rank can go on from.
  [[noreturn]] void abort(ExitCode code);

 private:
  int rank_ = 0;
  int size_ = 1;
  std::string host_;
};

// True if this process was started by an MPI launcher (mpirun, srun).
bool under_launcher();

// Replaces this process by `mpirun ... -n ranks PROGRAM ARGS` with the flags that let a worker die
// without ending the job. Throws Error if mpirun is missing.
void exec_under_mpirun(int ranks, int argc, char** argv);

}  // namespace rollcall
