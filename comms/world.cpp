// SPDX-License-Identifier: Apache-2.0
#include "comms/world.h"

#include <mpi.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

#include "comms/launcher.h"
#include "comms/log.h"
#include "comms/mpi_check.h"
#include "comms/scratch_folder.h"

namespace rollcall {
namespace {

void flush_everything() {
  log_flush();
  std::fflush(nullptr);
}

// Known before MPI starts, which may never end if another rank dies meanwhile.
int rank_by_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* value = std::getenv(name)) return std::atoi(value);
  }
  return 0;
}

// Open MPI leaves its shared memory in /dev/shm if a rank is killed. The others have it mapped once
// MPI_Init, which waits for all, has returned; so each rank keeps its own in a folder that it
// removes then.
void init_mpi(int* argc, char*** argv) {
  const ScratchFolder shared("/dev/shm");
  constexpr const char* kWhere = "OMPI_MCA_btl_vader_backing_directory";
  if (!shared.path().empty()) ::setenv(kWhere, shared.path().c_str(), /*overwrite=*/0);
  int provided = 0;
  check_mpi(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
}

}  // namespace

void check_mpi(int code, const char* call, std::source_location where) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw Error(std::string(call) + " failed: " + std::string(text.data(), length) + " (" +
                  where.file_name() + ":" + std::to_string(where.line()) + ")",
              "see the ranks' logs for the first error; `rollcall doctor` tests MPI");
}

World::World(int* argc, char*** argv) : lifeline_(rank_by_launcher()) {
  init_mpi(argc, argv);
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
  std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
  int length = 0;
  check_mpi(MPI_Get_processor_name(name.data(), &length), "MPI_Get_processor_name");
  host_.assign(name.data(), length);
  lifeline_.say_ready();
}

void World::finish(ExitCode code) {
  flush_everything();
  lifeline_.say_left(static_cast<int>(code));
  ::_exit(static_cast<int>(code));
}

void World::abort(ExitCode code, const std::string& why) {
  flush_everything();
  lifeline_.say_failed(static_cast<int>(code), why);
  if (!lifeline_.connected() && !end_parent_mpirun())
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  ::_exit(static_cast<int>(code));
}

}  // namespace rollcall
