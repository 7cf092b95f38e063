// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <iostream>
#include <string>

#include "comms/error.h"
#include "comms/world.h"

// Small programs that start themselves under mpirun: `PROGRAM RANKS [MODE]`. What they print
// decides, since mpirun's exit code says nothing after a rank was killed: rank 0 (or who survives
// it) prints a line with PASSED, a rank that finds something wrong prints FAILED and ends all.
namespace rollcall {

inline void require(World& world, bool truth, const std::string& claim) {
  if (truth) return;
  std::cout << "FAILED: rank " << world.rank() << ": " << claim << std::endl;
  world.abort(ExitCode::kFailure, claim);
}

inline int run_mpi_test(int argc, char** argv,
                        void (*test)(World& world, const std::string& mode)) {
  try {
    if (!under_launcher()) return run_under_mpirun(std::atoi(argv[1]), 0, argc, argv).code;
    World world(&argc, &argv);
    try {
      test(world, argc > 2 ? argv[2] : "");
    } catch (const Error& error) {
      require(world, false, std::string("unexpected Error: ") + error.what());
    }
    world.finish(ExitCode::kDone);
  } catch (const Error& error) {
    std::cout << "FAILED: " << error.what() << " - " << error.what_to_do() << std::endl;
  }
  return 1;
}

}  // namespace rollcall
