// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>

#include "comms/slurm_job.h"
#include "rollcall/doctor/bounded.h"
#include "rollcall/doctor/checks.h"
#include "rollcall/run_setup.h"
#include "rollout_workers/endpoint_check.h"

namespace rollcall {
namespace {

constexpr std::chrono::seconds kSlurmLimit{10};
constexpr const char* kNoRequeue =
    "submit with --chain N instead, and set requeue: false in the site file";

std::string trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "this host";
}

// Whether jobs may be put back into the queue; nothing if Slurm does not say.
std::optional<bool> may_requeue(const std::optional<SlurmJob>& job) {
  std::vector<std::string> command{"scontrol", "show", "config"};
  if (job) command = {"scontrol", "--oneliner", "show", "job", job->id()};
  const BoundedEnd end = run_program(kSlurmLimit, command);
  return end.code == 0 ? requeue_in(end.text) : std::nullopt;
}

Finding check_requeue(const Patient& patient, const std::optional<SlurmJob>& job) {
  const std::string what = "requeue";
  const auto allowed = may_requeue(job);
  if (!allowed)
    return {what, Health::kWarning, "Slurm does not say whether jobs may be requeued", kNoRequeue};
  const std::string where = job ? "this job" : "jobs, unless they ask for something else,";
  if (*allowed) return {what, Health::kOk, where + " may go back into the queue"};
  // `rollcall submit` asks with --requeue, which overrides the cluster's default.
  const bool only_default = !job && patient.site.requeue;
  return {what, only_default ? Health::kOk : Health::kWarning,
          where + " do not go back into the queue", kNoRequeue};
}

Finding check_job(const SlurmJob& job) {
  const auto left = job.time_left();
  if (left)
    return {"Slurm job", Health::kOk,
            fmt::format("{}, {} minutes left", job.id(), left->count() / 60)};
  return {"Slurm job", Health::kWarning, job.id() + ", without a time limit, or Slurm does not say",
          "a run in it cannot stop by itself before the job's end"};
}

std::vector<Finding> check_partition(const SiteOptions& site) {
  if (site.partition.empty()) return {};
  const BoundedEnd end = run_program(
      kSlurmLimit, {"sinfo", "--noheader", "--partition=" + site.partition, "--format=%a %D %l"});
  const std::string said = trimmed(end.text);
  if (end.code == 0 && said.starts_with("up"))
    return {{"partition", Health::kOk,
             fmt::format("{}: {} (state, nodes, longest time)", site.partition, said)}};
  return {{"partition", Health::kFailed, site.partition + " is not there or not up: " + said,
           "name another `partition` in the site file; sinfo lists them"}};
}

std::vector<Finding> check_controller(const std::string& version) {
  const BoundedEnd end = run_program(kSlurmLimit, {"scontrol", "ping"});
  if (end.code == 0) return {{"Slurm", Health::kOk, version}};
  return {{"Slurm", Health::kWarning,
           version + ", but its controller does not answer: " +
               (end.in_time ? trimmed(end.text) : "no answer in time"),
           "run rollcall with mpirun alone (rollcall train), or ask who keeps the cluster"}};
}

Finding where_am_i(const Patient& patient) {
  return {"compute node", Health::kWarning,
          "these lines are about " + host_name() + ", not about a node of a job",
          "run it there too: srun rollcall doctor " + patient.run_file};
}

}  // namespace

std::optional<bool> requeue_in(std::string_view shown) {
  const std::size_t name = shown.find("Requeue");
  if (name == std::string_view::npos) return std::nullopt;
  const std::size_t value =
      shown.find_first_not_of(" =", name + std::string_view("Requeue").size());
  if (value == std::string_view::npos) return std::nullopt;
  if (shown[value] != '0' && shown[value] != '1') return std::nullopt;
  return shown[value] == '1';
}

std::vector<Finding> check_slurm(const Patient& patient) {
  const BoundedEnd version = run_program(kSlurmLimit, {"sinfo", "--version"});
  if (!version.in_time || (version.code != 0 && version.code != 127))
    return {{"Slurm", Health::kWarning,
             version.in_time ? "here, but not set up: " + trimmed(version.text)
                             : "sinfo --version does not answer",
             "ask who keeps the cluster; rollcall train starts runs under mpirun alone"}};
  if (version.code != 0)
    return {{"Slurm", Health::kMissing, "not on this machine; runs start under mpirun",
             "to submit jobs, use a login node of the cluster"}};
  std::vector<Finding> findings = check_controller(trimmed(version.text));
  if (findings.front().health != Health::kOk) return findings;
  const auto job = SlurmJob::of_environment();
  findings.push_back(job ? check_job(*job) : where_am_i(patient));
  findings.push_back(check_requeue(patient, job));
  for (Finding& finding : check_partition(patient.site)) findings.push_back(std::move(finding));
  return findings;
}

std::vector<Finding> check_endpoint(const Patient& patient, const std::string& what,
                                    const std::string& url) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string reason = try_endpoint(url);
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  const bool elsewhere = is_loopback(url) && patient.site.nodes > 1;
  if (!reason.empty())
    return {{"endpoint", Health::kFailed,
             fmt::format("{} at {}, from {}: {}", what, url, host_name(), reason),
             "start the server, correct the url, or open the firewall and unset proxies between "
             "this host and it"}};
  return {{"endpoint", elsewhere ? Health::kWarning : Health::kOk,
           fmt::format("{} at {}, from {}: connected in {:.1f} ms", what, url, host_name(), ms),
           "the url means each node itself, and the site file asks for several: name the host"}};
}

std::vector<Finding> check_model(const Patient& patient) {
  const RunConfig& config = *patient.config;
  check_model_and_data(config);
  return {{"model and data", Health::kOk,
           fmt::format("{}, {} parameters; chat template known; every row of the data fits",
                       config.model.path, patient.parameters)}};
}

}  // namespace rollcall
