// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <set>

#include "comms/launch_ping.h"
#include "comms/launcher.h"
#include "comms/world.h"
#include "rollcall/doctor/bounded.h"
#include "rollcall/doctor/checks.h"

namespace rollcall {
namespace {

constexpr std::chrono::seconds kPingLimit{20};

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string last_line(const std::string& text) {
  const auto end = text.find_last_not_of(" \n");
  if (end == std::string::npos) return "nothing was said";
  const auto begin = text.rfind('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1, end - begin);
}

Finding check_mpirun() {
  const std::string what = "MPI launcher";
  const BoundedEnd end = run_program(std::chrono::seconds(10), {"mpirun", "--version"});
  if (end.code == 127)
    return {what, Health::kFailed, "no mpirun on PATH",
            "install Open MPI (Debian: apt-get install openmpi-bin), load its module, or put its "
            "bin folder on PATH"};
  if (!end.in_time)
    return {what, Health::kFailed, "mpirun --version does not answer",
            "see where mpirun and its libraries lie (which mpirun): a file system may hang"};
  const std::string version = first_line(end.text);
  if (end.code != 0 || version.find("Open MPI") == std::string::npos)
    return {what, Health::kFailed, "mpirun is not Open MPI's: " + version,
            "put the bin folder of the Open MPI that rollcall was built with first on PATH"};
  return {what, Health::kOk, version};
}

// Two ranks of this binary, started as a run starts its own; on two nodes, if the job has two.
int launch_ping_ranks(const Patient& patient, int out) {
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  ::setenv("OMPI_MCA_btl_base_verbose", "20", 0);
  const char* nodes = std::getenv("SLURM_JOB_NUM_NODES");
  if (nodes != nullptr && std::atoi(nodes) > 1)
    ::setenv("OMPI_MCA_rmaps_base_mapping_policy", "node", 0);
  std::vector<std::string> words{patient.program, "doctor", "--ping"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return run_under_mpirun(2, 2, static_cast<int>(argv.size()), argv.data()).code;
}

Finding judge_ping(const BoundedEnd& end) {
  const std::string what = "MPI";
  const auto ping = find_launch_ping(end.text);
  if (!ping && (!end.in_time || end.seconds >= static_cast<double>(kPingLimit.count())))
    return {what, Health::kFailed,
            fmt::format("two ranks did not find each other within {} s", kPingLimit.count()),
            "on several nodes name the network to use: OMPI_MCA_btl_tcp_if_include=IFACE and "
            "OMPI_MCA_oob_tcp_if_include=IFACE (ip -brief address lists them); on one, set "
            "OMPI_MCA_btl_vader_single_copy_mechanism=none"};
  if (!ping)
    return {what, Health::kFailed, "two ranks could not be started: " + last_line(end.text),
            "try mpirun -n 2 hostname; modules must load the Open MPI that rollcall was built "
            "with"};
  if (ping->ranks != 2)
    return {what, Health::kFailed,
            fmt::format("mpirun started two ranks, but each is alone in {}", ping->library),
            "mpirun belongs to another MPI: put the bin folder of the Open MPI that rollcall was "
            "built with first on PATH"};
  return {what, Health::kOk,
          fmt::format("2 ranks on {} in {:.1f} s, {}; transports {}; round trip {:.1f} us, {:.0f} "
                      "MB/s",
                      ping->hosts, end.seconds, ping->library, transports_in(end.text),
                      ping->round_trip_us, ping->megabytes_per_second)};
}

}  // namespace

std::string transports_in(const std::string& output) {
  constexpr std::string_view kBefore = "Using ", kAfter = " btl for send";
  std::set<std::string> names;
  for (std::size_t end = 0; (end = output.find(kAfter, end)) != std::string::npos; ++end) {
    const std::size_t begin = output.rfind(kBefore, end);
    if (begin != std::string::npos)
      names.insert(output.substr(begin + kBefore.size(), end - begin - kBefore.size()));
  }
  return names.empty() ? "unknown" : fmt::format("{}", fmt::join(names, ", "));
}

std::vector<Finding> check_launcher(const Patient& patient) {
  std::vector<Finding> findings{check_mpirun()};
  if (findings.front().health != Health::kOk) return findings;
  if (under_launcher() || is_set("SLURM_STEP_NUM_TASKS")) {
    findings.push_back({"MPI", Health::kWarning,
                        "not tested: mpirun does not start inside a step of srun",
                        "to test it run rollcall doctor in a batch script or in salloc, without "
                        "srun"});
    return findings;
  }
  findings.push_back(judge_ping(run_bounded(kPingLimit + std::chrono::seconds(5), [&](int out) {
    return launch_ping_ranks(patient, out);
  })));
  return findings;
}

}  // namespace rollcall
