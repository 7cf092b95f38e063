// SPDX-License-Identifier: Apache-2.0
#include "rollcall/submit_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ostream>
#include <system_error>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "configs/site_config.h"
#include "rollcall/run_setup.h"
#include "slurm/batch_script.h"
#include "slurm/sbatch.h"
#include "trainer/result.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

// Where the site's options come from; empty: nowhere.
fs::path site_file(const fs::path& given) {
  if (!given.empty()) return given;
  if (const char* named = std::getenv("ROLLCALL_SITE"); named != nullptr && *named != '\0')
    return named;
  const char* home = std::getenv("HOME");
  const fs::path own = fs::path(home == nullptr ? "" : home) / ".config/rollcall/site.yaml";
  std::error_code unreadable;
  return home != nullptr && fs::exists(own, unreadable) ? own : fs::path();
}

void check_arguments(const SubmitArguments& arguments) {
  if (arguments.chain > 0 && !arguments.sweeps.empty())
    throw input_error("--chain and --sweep do not go together",
                      "submit the sweep again when its jobs have ended: runs that are not done yet "
                      "go on, the others are left out");
}

// Every run of the job is read as its ranks will read it.
RunConfig config_of(const SubmitArguments& arguments, const std::vector<std::string>& more) {
  RunArguments run = arguments.run;
  run.overrides.insert(run.overrides.end(), more.begin(), more.end());
  return load_run_config(run, Purpose::kTrain);
}

BatchJob job_of(const SubmitArguments& arguments, const RunConfig& config) {
  std::error_code unreadable;
  const fs::path self = fs::read_symlink("/proc/self/exe", unreadable);
  BatchJob job;
  job.name = config.run.name;
  job.program = unreadable ? "rollcall" : self.string();
  job.run_file = fs::absolute(arguments.run.run_file).lexically_normal().string();
  job.folder = fs::current_path().string();
  job.runs_dir = run_directory(config).parent_path().lexically_normal().string();
  job.learners = config.cluster.learners;
  job.workers = config.cluster.workers;
  job.stop_before = config.cluster.stop_before;
  job.overrides = arguments.run.overrides;
  job.chain = arguments.chain > 0;
  return job;
}

void check_time(const RunConfig& config, const SiteOptions& site) {
  const auto before = config.cluster.stop_before;
  if (before * 2 <= site.time) return;
  throw input_error(fmt::format("jobs of {} leave a run too little time that stops {} s before "
                                "their end",
                                slurm_time(site.time),
                                std::chrono::duration_cast<std::chrono::seconds>(before).count()),
                    "raise `time` in the site file, or lower cluster.stop_before in the run file");
}

bool is_finished(const fs::path& run_dir, const RunConfig& config, std::ostream& remarks) {
  const auto result = read_result(run_dir);
  if (!result || result->status != RunStatus::kDone) return false;
  if (result->step >= config.run.steps) return true;
  remarks << run_dir.string() << " is done at step " << result->step << " and goes on to step "
          << config.run.steps << "\n";
  return false;
}

// What stands in the script itself.
void refuse_sweep_of_job(const SweepPoint& point) {
  for (const std::string_view key : {"run.name=", "run.dir=", "cluster.stop_before="})
    for (const std::string& text : point.overrides)
      if (text.starts_with(key))
        throw input_error(
            "--sweep " + text + ": all jobs of an array have the same " +
                std::string(key.substr(0, key.size() - 1)),
            "the runs of a sweep are told apart by their numbers: NAME-0, NAME-1, ...");
}

// Leaves out what is done already, and says so.
void add_sweep(const SubmitArguments& arguments, BatchJob& job, std::ostream& remarks) {
  for (SweepPoint& point : sweep_points(arguments.sweeps)) {
    refuse_sweep_of_job(point);
    std::vector<std::string> overrides = point.overrides;
    overrides.push_back("run.name=" + run_name(job, point));
    const RunConfig config = config_of(arguments, overrides);
    if (config.cluster.learners != job.learners || config.cluster.workers != job.workers)
      throw input_error("--sweep changes the number of ranks, but the jobs of an array are alike",
                        "submit runs of different sizes one by one");
    if (is_finished(run_directory(config), config, remarks)) {
      remarks << "left out, for it is done: " << run_directory(config).string() << "\n";
    } else {
      job.sweep.push_back(std::move(point));
    }
  }
}

std::vector<fs::path> run_folders(const BatchJob& job) {
  std::vector<fs::path> folders;
  for (const SweepPoint& point : job.sweep)
    folders.push_back(fs::path(job.runs_dir) / run_name(job, point));
  if (folders.empty()) folders.push_back(fs::path(job.runs_dir) / job.name);
  return folders;
}

// Slurm makes no folders for its logs.
void make_folders(const BatchJob& job) {
  for (const fs::path& folder : run_folders(job)) {
    std::error_code error;
    fs::create_directories(folder / "log", error);
    if (error)
      throw input_error(
          "run.dir: cannot create " + (folder / "log").string() + ": " + error.message(),
          "choose a folder you may write to, on a file system that all nodes see");
  }
}

std::string log_of(const BatchJob& job, const std::string& id) {
  std::string log = log_pattern(job);
  for (const std::string pattern : {"%j", "%A"})
    if (const auto at = log.find(pattern); at != std::string::npos) log.replace(at, 2, id);
  while (log.find("%a") != std::string::npos) log.replace(log.find("%a"), 2, "INDEX");
  return log;
}

void explain(const BatchJob& job, const SiteOptions& site, const std::vector<std::string>& ids,
             std::ostream& out) {
  std::string all;
  for (const std::string& id : ids) all += (all.empty() ? "" : ",") + id;
  out << fmt::format("submitted job {} ({}): {} ranks, {}\n", all, job.name,
                     job.learners + job.workers, slurm_time(site.time));
  out << "  watch:          squeue -j " << all << "\n";
  out << "  log:            tail -F " << log_of(job, ids.front()) << "\n";
  for (const fs::path& folder : run_folders(job))
    out << "  result:         " << (folder / "result.json").string() << "\n";
  if (!job.chain)  // the next of a chain would begin
    out << "  save and stop:  scancel --batch --signal=TERM " << ids.front() << "\n";
  out << "  stop at once:   scancel " << fmt::format("{}", fmt::join(ids, " "))
      << "   (resumable too: submit again)\n";
}

}  // namespace

SiteOptions site_options(const fs::path& given) {
  const fs::path file = site_file(given);
  return file.empty() ? SiteOptions{} : read_site_options(file);
}

int run_submit(const SubmitArguments& arguments, std::ostream& out, std::ostream& remarks) {
  check_arguments(arguments);
  const SiteOptions site = site_options(arguments.site);
  const RunConfig config = config_of(arguments, {});
  check_time(config, site);
  BatchJob job = job_of(arguments, config);
  add_sweep(arguments, job, remarks);
  const bool finished = arguments.sweeps.empty()
                            ? is_finished(run_directory(config), config, remarks)
                            : job.sweep.empty();
  if (finished)
    throw input_error("nothing to submit: " + run_directory(config).string() + " is done",
                      "more run.steps go on from its end, another run.name starts afresh");
  const std::string script = batch_script(job, site);
  if (arguments.dry_run) {
    out << script;
    return 0;
  }
  make_folders(job);
  const fs::path file = run_directory(config) / "submit.sbatch";
  fs::create_directories(file.parent_path());
  write_durably(file, script);
  std::vector<std::string> ids;
  try {
    for (int i = 0; i < std::max(1, arguments.chain); ++i) ids.push_back(submit_to_slurm(file));
  } catch (const Error&) {
    if (!ids.empty()) explain(job, site, ids, out);  // these are in the queue
    throw;
  }
  explain(job, site, ids, out);
  return 0;
}

}  // namespace rollcall
