// SPDX-License-Identifier: Apache-2.0
#include "slurm/batch_script.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr std::int64_t kMebibyte = 1 << 20;

std::int64_t rounded_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit; }

std::int64_t seconds_of(std::chrono::milliseconds time) { return rounded_up(time.count(), 1000); }

// One word of a shell command, whatever is in it.
std::string shell_word(std::string_view text) {
  const auto is_safe = [](unsigned char c) {
    return std::isalnum(c) ||
           std::string_view("_-./:=+,@%").find(static_cast<char>(c)) != std::string_view::npos;
  };
  if (!text.empty() && std::ranges::all_of(text, is_safe)) return std::string(text);
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string count(std::int64_t number, const std::string& noun) {
  return std::to_string(number) + " " + noun + (number == 1 ? "" : "s");
}

int ranks_of(const BatchJob& job) { return job.learners + job.workers; }

// At most, on any one.
std::int64_t ranks_per_node(const BatchJob& job, const SiteOptions& site) {
  return rounded_up(ranks_of(job), site.nodes);
}

std::int64_t learners_per_node(const BatchJob& job, const SiteOptions& site) {
  return std::min<std::int64_t>(job.learners, ranks_per_node(job, site));
}

// Learners may use the cores of the workers beside them, who wait meanwhile.
std::int64_t learner_threads(const BatchJob& job, const SiteOptions& site) {
  return site.cpus_per_rank * (ranks_per_node(job, site) / learners_per_node(job, site));
}

void check(const BatchJob& job, const SiteOptions& site) {
  require_plain(job.program, "the path of rollcall, " + job.program);
  require_plain(job.run_file, "the path of the run file, " + job.run_file);
  require_plain(job.folder, "the path of the current folder, " + job.folder);
  require_plain(job.runs_dir, "the path of the run's folder, " + job.runs_dir);
  for (const std::string& path : {job.folder, job.runs_dir})
    if (path.find('%') != std::string::npos)
      throw input_error("the path " + path + " holds a %, which Slurm would replace",
                        "use a folder of another name");
  for (const std::string& text : job.overrides) require_plain(text, "--set " + text);
  const int ranks = ranks_of(job);
  if (site.nodes > ranks)
    throw input_error(fmt::format("the site file asks for {}, the run has {}",
                                  count(site.nodes, "node"), count(ranks, "rank")),
                      "ask for fewer nodes, or for more cluster.workers");
}

class Script {
 public:
  Script(const BatchJob& job, const SiteOptions& site) : job_(job), site_(site) {}

  std::string text() {
    introduction();
    place();
    resources();
    end_of_job();
    for (const std::string& line : site_.extra) directive(line);
    preparation();
    if (!job_.sweep.empty()) sweep();
    command();
    return std::move(text_);
  }

 private:
  void line(const std::string& text = {}) { text_ += text + "\n"; }
  void directive(const std::string& option) { line("#SBATCH " + option); }
  void directive_unless_empty(const char* option, const std::string& value) {
    if (!value.empty()) directive(option + value);
  }

  void introduction() {
    line("#!/bin/bash");
    line("# " +
         (job_.sweep.empty()
              ? "Trains " + job_.name
              : "Trains " + count(static_cast<std::int64_t>(job_.sweep.size()), "run") + " of " +
                    job_.name) +
         " with " + count(job_.learners, "learner") + " and " + count(job_.workers, "worker") +
         ". Written by `rollcall submit`.");
    line();
  }

  void place() {
    directive("--job-name=" + job_.name);
    directive_unless_empty("--partition=", site_.partition);
    directive_unless_empty("--account=", site_.account);
    directive_unless_empty("--qos=", site_.qos);
    directive("--chdir=" + job_.folder);
    directive("--output=" + log_pattern(job_));
    directive("--open-mode=append");
    if (job_.sweep.empty()) return;
    std::string indices;
    for (const SweepPoint& point : job_.sweep)
      indices += (indices.empty() ? "" : ",") + std::to_string(point.index);
    directive("--array=" + indices);
  }

  void resources() {
    line("# One task a rank, learners first: mpirun fills the first node, then the next.");
    directive("--nodes=" + std::to_string(site_.nodes));
    directive("--ntasks=" + std::to_string(ranks_of(job_)));
    if (site_.nodes > 1)
      directive("--ntasks-per-node=" + std::to_string(ranks_per_node(job_, site_)));
    directive("--cpus-per-task=" + std::to_string(site_.cpus_per_rank));
    if (site_.memory_per_rank > 0) {
      const auto bytes = rounded_up(site_.memory_per_rank, site_.cpus_per_rank);
      directive(fmt::format("--mem-per-cpu={}M", rounded_up(bytes, kMebibyte)));
    }
    if (site_.gpus_per_learner == 0) return;
    if (site_.nodes > 1) line("# Of each node: in one allocation all nodes are alike.");
    directive(
        fmt::format("--gres=gpu:{}", site_.gpus_per_learner * learners_per_node(job_, site_)));
  }

  bool requeues() const { return site_.requeue && !job_.chain; }

  void end_of_job() {
    directive("--time=" + slurm_time(site_.time));
    if (job_.stop_before.count() > 0) {
      line("# So long before its end the run is asked to save and stop (cluster.stop_before).");
      directive(fmt::format("--signal=B:USR1@{}", seconds_of(job_.stop_before)));
    }
    directive(requeues() ? "--requeue" : "--no-requeue");
    if (!job_.chain) return;
    line("# Jobs of this name run one after the other, each from where the last one stopped.");
    directive("--dependency=singleton");
  }

  void preparation() {
    line();
    line("set -e");
    if (!site_.modules.empty()) {
      std::string words = "module load";
      for (const std::string& name : site_.modules) words += " " + shell_word(name);
      line(words);
    }
    for (const std::string& text : site_.setup) line(text);
    line(fmt::format("export OMP_NUM_THREADS={}  # of a learner; a worker computes on one core",
                     learner_threads(job_, site_)));
    for (const auto& [name, value] : site_.environment)
      line("export " + name + "=" + shell_word(value));
    line();
  }

  void sweep() {
    line("# The settings of each run; the number is its index in the array.");
    for (const SweepPoint& point : job_.sweep) {
      std::string settings = "run.name=" + run_name(job_, point);
      for (const std::string& text : point.overrides) settings += " " + text;
      line(fmt::format("sweep[{}]='{}'", point.index, settings));
    }
    line("read -ra settings <<<\"${sweep[$SLURM_ARRAY_TASK_ID]}\"");
    line();
  }

  // exec: the signal before the end goes to the first process of the job, which this one becomes.
  void command() {
    if (job_.stop_before.count() > 0)
      line("trap '' USR1  # rollcall hears it once it is up; before, it would end the job");
    std::string words = "exec ";
    if (!site_.container.image.empty()) words += container();
    words += site_.container.image.empty() ? shell_word(job_.program)
                                           : shell_word(site_.container.program);
    words += " train " + shell_word(job_.run_file);
    for (const std::string& text : job_.overrides) words += " --set " + shell_word(text);
    if (!job_.sweep.empty()) words += " \"${settings[@]/#/--set=}\"";
    line(words + (requeues() ? " --requeue" : ""));
  }

  std::string container() const {
    std::string words = "apptainer exec ";
    if (site_.gpus_per_learner > 0) words += "--nv ";
    for (const std::string& bind : site_.container.binds)
      words += "--bind " + shell_word(bind) + " ";
    return words + shell_word(site_.container.image) + " ";
  }

  const BatchJob& job_;
  const SiteOptions& site_;
  std::string text_;
};

}  // namespace

std::string slurm_time(std::chrono::milliseconds time) {
  const std::int64_t seconds = seconds_of(time), days = seconds / 86400;
  return (days > 0 ? std::to_string(days) + "-" : std::string()) +
         fmt::format("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
}

std::string run_name(const BatchJob& job, const SweepPoint& point) {
  return job.name + "-" + std::to_string(point.index);
}

std::string log_pattern(const BatchJob& job) {
  return job.runs_dir + "/" + job.name +
         (job.sweep.empty() ? "/log/slurm-%j.log" : "-%a/log/slurm-%A_%a.log");
}

std::string batch_script(const BatchJob& job, const SiteOptions& site) {
  check(job, site);
  return Script(job, site).text();
}

}  // namespace rollcall
