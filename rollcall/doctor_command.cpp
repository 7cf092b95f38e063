// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "comms/error.h"
#include "comms/launch_ping.h"
#include "comms/stop_signal.h"
#include "model/model_spec.h"
#include "rollcall/commands.h"
#include "rollcall/doctor/bounded.h"
#include "rollcall/doctor/checks.h"
#include "rollcall/run_setup.h"
#include "rollcall/submit_command.h"
#include "rollcall/version.h"
#include "rollout_workers/endpoint_check.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// The folder itself may not exist yet.
fs::path nearest_existing(fs::path folder) {
  std::error_code unreadable;
  while (!fs::exists(folder, unreadable) && folder.has_relative_path())
    folder = folder.parent_path();
  return folder;
}

Finding finding_of(const std::string& what, const Error& error) {
  return {what, Health::kFailed, error.what(), error.what_to_do()};
}

// What cannot be read becomes a finding, and the rest is looked at all the same.
Patient make_patient(const DoctorArguments& arguments, std::vector<Finding>& problems) {
  Patient patient;
  std::error_code unreadable;
  const fs::path self = fs::read_symlink("/proc/self/exe", unreadable);
  patient.program = unreadable ? "rollcall" : self.string();
  patient.run_file = arguments.run.run_file.string();
  patient.folder = fs::current_path(unreadable);
  try {
    patient.site = site_options(arguments.site);
  } catch (const Error& error) {
    problems.push_back(finding_of("site file", error));
  }
  if (arguments.run.run_file.empty()) return patient;
  try {
    patient.config = load_run_config(arguments.run, Purpose::kTrain);
    patient.folder = nearest_existing(fs::absolute(patient.config->run.dir).lexically_normal());
    problems.push_back({"run file", Health::kOk, patient.run_file});
  } catch (const Error& error) {
    problems.push_back(finding_of("run file", error));
  }
  return patient;
}

// 0 if the model cannot be read, which is a finding of check_model().
std::int64_t parameters_of(const RunConfig& config) {
  try {
    return parameter_count(read_model_spec(config.model.path));
  } catch (const Error&) {
    return 0;
  }
}

std::vector<Check> checks_of(const Patient& patient) {
  using std::chrono::seconds;
  const auto check = [&](const char* what, seconds limit,
                         std::vector<Finding> (*body)(const Patient&)) {
    return Check{what, limit, [&patient, body] { return body(patient); }};
  };
  std::vector<Check> checks{check("CPU", seconds(10), check_cores),
                            check("MPI", seconds(65), check_launcher),
                            check("shared memory", seconds(10), check_shared_memory),
                            check("GPU", seconds(60), check_gpu),
                            check("open files", seconds(5), check_open_files),
                            check("Slurm", seconds(90), check_slurm),
                            check("run folder", seconds(30), check_journal_folder),
                            check("disk space", seconds(10), check_disk_space)};
  if (!patient.config) return checks;
  checks.push_back(check("model and data", seconds(300), check_model));
  for (const auto& endpoint : distinct_endpoints(patient.config->tools, patient.config->grader))
    checks.push_back({"endpoint", seconds(10), [&patient, endpoint] {
                        return check_endpoint(patient, endpoint.what, endpoint.url);
                      }});
  return checks;
}

// Shows findings as they come and keeps the exit code.
class Display {
 public:
  explicit Display(bool json) : json_(json) {}
  void show(const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) {
      const std::string text = json_ ? finding_json(finding) + "\n" : finding_text(finding);
      std::fputs(text.c_str(), stdout);
      if (finding.health == Health::kFailed) code_ = 1;
    }
    std::fflush(stdout);  // a child must not inherit what is buffered
  }
  int code() const { return code_; }

 private:
  bool json_;
  int code_ = 0;
};

int examine(const DoctorArguments& arguments) {
  Display display(arguments.json);
  const StopSignal stop;
  std::vector<Finding> problems{
      {"rollcall", Health::kOk, std::string(kVersion) + ", torch " + kTorchVersion}};
  Patient patient = make_patient(arguments, problems);
  if (patient.config) patient.parameters = parameters_of(*patient.config);
  display.show(problems);
  for (const Check& check : checks_of(patient)) {
    display.show(run_check(check));
    if (stop.stop_requested()) return static_cast<int>(ExitCode::kStopped);
  }
  return display.code();
}

}  // namespace

int doctor_command(const DoctorArguments& arguments) {
  if (arguments.ping) run_launch_ping(std::chrono::seconds(20));
  if (!arguments.probe_file.empty()) return read_probe_journal(arguments.probe_file);
  return examine(arguments);
}

}  // namespace rollcall
