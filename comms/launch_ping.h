// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace rollcall {

// What two ranks measured between each other.
struct LaunchPing {
  int ranks = 0;      // that MPI joined; 1: the launcher and the MPI library do not know each other
  std::string hosts;  // of rank 0 and rank 1, one name if it is the same
  std::string library;  // version of the MPI library
  double round_trip_us = 0;
  double megabytes_per_second = 0;
};

// The body of a rank: joins MPI, plays ping-pong between ranks 0 and 1, prints the result on rank
// 0's standard output as one line, and leaves. SIGALRM ends it after `limit`. Does not return.
[[noreturn]] void run_launch_ping(std::chrono::seconds limit);

// Finds that line in what a launcher printed.
std::optional<LaunchPing> find_launch_ping(std::string_view output);

}  // namespace rollcall
