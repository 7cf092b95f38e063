// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace rollcall {

// Starts `ranks` ranks of this program with the same arguments under mpirun, waits for them and
// returns mpirun's exit status. SIGINT, SIGTERM and SIGUSR1 reach the ranks as a request to stop; a
// second one ends them at once.
int run_ranks(int ranks, int argc, char** argv);

}  // namespace rollcall
