// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "comms/error.h"
#include "comms/lifeline.h"

namespace rollcall {

class StopClock;

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
  // Ends every rank of the job, for an error that no rank can go on from; `why` is what the run
  // leaves as its message. (Without the parent of run_under_mpirun() the others on a remote host
  // notice by their timeouts: MPI_Abort ends only the caller under --enable-recovery.)
  [[noreturn]] void abort(ExitCode code, const std::string& why);

 private:
  Lifeline lifeline_;
  int rank_ = 0;
  int size_ = 1;
  std::string host_;
};

// True if this process was started by an MPI launcher (mpirun, srun).
bool under_launcher();

// Who asked a job to stop.
enum class StopCause { kNone, kPerson, kDeadline };

// How a job of ranks ended.
struct JobEnd {
  int code = 0;             // rank 0's own (mpirun's says nothing), or what ended the job
  std::string failure;      // one line; empty if rank 0 left in order
  bool on_request = false;  // it was asked to stop and did not end in order
  StopCause asked = StopCause::kNone;
};

// Runs `mpirun ... -n ranks PROGRAM ARGS` with the flags that let a rank die without ending the
// job, and watches the ranks: the death of one of ranks 0..essential-1, or an error that any rank
// ends the job for, ends all of them. So does a rank that is still there some seconds after rank 0
// has left. SIGINT, SIGTERM, SIGHUP and SIGUSR1, or a `clock` (may be null) that is due, become a
// stop request (SIGUSR1) for all ranks; a later signal ends the job at once, unless it is the
// SIGUSR1 that batch systems send when the clock was due. SIGUSR1 and the clock are deadlines, the
// others persons. Failures have been shown on standard error. Throws Error if mpirun is missing.
JobEnd run_under_mpirun(int ranks, int essential, int argc, char** argv,
                        const StopClock* clock = nullptr);

}  // namespace rollcall
