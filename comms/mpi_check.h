// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <source_location>

namespace rollcall {

// Throws Error with MPI's own text unless `code` is MPI_SUCCESS. Can only fire where the
// communicator returns its errors, which World sees to.
void check_mpi(int code, const char* call,
               std::source_location where = std::source_location::current());

}  // namespace rollcall
