// SPDX-License-Identifier: Apache-2.0
#include "comms/launch_ping.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "comms/mpi_check.h"
#include "comms/world.h"

namespace rollcall {
namespace {

constexpr std::string_view kMark = "rollcall-ping ";

// Seconds of one round trip, the best of `rounds`.
double round_trip(const World& world, std::size_t bytes, int rounds) {
  std::vector<char> buffer(bytes);
  const int count = static_cast<int>(bytes), other = 1 - world.rank();
  double best = 1e9;
  for (int i = 0; i < rounds; ++i) {
    const double begin = MPI_Wtime();
    if (world.rank() == 0)
      check_mpi(MPI_Send(buffer.data(), count, MPI_CHAR, other, 0, MPI_COMM_WORLD), "MPI_Send");
    check_mpi(MPI_Recv(buffer.data(), count, MPI_CHAR, other, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
              "MPI_Recv");
    if (world.rank() == 1)
      check_mpi(MPI_Send(buffer.data(), count, MPI_CHAR, other, 0, MPI_COMM_WORLD), "MPI_Send");
    best = std::min(best, MPI_Wtime() - begin);
  }
  return best;
}

std::string library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  check_mpi(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
  const std::string all(text.data(), length);
  return all.substr(0, all.find_first_of(",\n"));
}

// Rank 0 gets the names of both, rank 1 its own.
std::string host_names(const World& world) {
  std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
  if (world.rank() == 1) {
    std::copy_n(world.host().c_str(), std::min(world.host().size() + 1, name.size() - 1),
                name.data());
    check_mpi(MPI_Send(name.data(), static_cast<int>(name.size()), MPI_CHAR, 0, 1, MPI_COMM_WORLD),
              "MPI_Send");
    return world.host();
  }
  check_mpi(MPI_Recv(name.data(), static_cast<int>(name.size()), MPI_CHAR, 1, 1, MPI_COMM_WORLD,
                     MPI_STATUS_IGNORE),
            "MPI_Recv");
  const std::string other = name.data();
  return other == world.host() ? other : world.host() + " and " + other;
}

}  // namespace

void run_launch_ping(std::chrono::seconds limit) {
  ::alarm(static_cast<unsigned>(limit.count()));
  int argc = 0;
  char** argv = nullptr;
  World world(&argc, &argv);
  nlohmann::json result{{"ranks", world.size()}, {"library", library_version()}};
  if (world.size() > 1 && world.rank() < 2) {
    constexpr std::size_t kLarge = 1 << 20;
    result["hosts"] = host_names(world);
    result["round_trip_us"] = round_trip(world, 8, 200) * 1e6;
    result["megabytes_per_second"] = 2 * kLarge / round_trip(world, kLarge, 20) / 1e6;
  }
  if (world.rank() == 0) std::printf("%s%s\n", std::string(kMark).c_str(), result.dump().c_str());
  world.finish(ExitCode::kDone);
}

std::optional<LaunchPing> find_launch_ping(std::string_view output) {
  const std::size_t mark = output.find(kMark);
  if (mark == std::string_view::npos) return std::nullopt;
  const std::size_t begin = mark + kMark.size();
  const auto json = nlohmann::json::parse(output.substr(begin, output.find('\n', begin) - begin),
                                          nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  return LaunchPing{json.value("ranks", 0), json.value("hosts", ""), json.value("library", ""),
                    json.value("round_trip_us", 0.0), json.value("megabytes_per_second", 0.0)};
}

}  // namespace rollcall
