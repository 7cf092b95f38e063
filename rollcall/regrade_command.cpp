// SPDX-License-Identifier: Apache-2.0
#include "rollcall/regrade_command.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/task.h"
#include "rollcall/run_setup.h"
#include "rollout_workers/endpoint_check.h"
#include "rollout_workers/stored_grading.h"
#include "trainer/journal.h"
#include "trainer/regrade_summary.h"
#include "trainer/run_facts.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct StepRange {
  std::int64_t first = 0, last = std::numeric_limits<std::int64_t>::max();
};

std::int64_t step_number(std::string_view text) {
  std::int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    throw input_error("--step: " + std::string(text) + " is no step", "write A or A..B");
  return value;
}

StepRange steps_of(const std::string& text) {
  if (text.empty()) return {};
  const std::size_t dots = text.find("..");
  if (dots == std::string::npos) return {step_number(text), step_number(text)};
  const StepRange range{step_number(std::string_view(text).substr(0, dots)),
                        step_number(std::string_view(text).substr(dots + 2))};
  if (range.first > range.last) throw input_error("--steps " + text + " ends before it begins");
  return range;
}

// A secret that only a tool needs may be missing: tools are not called.
std::optional<std::string> environment_or_name(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "${" + name + "}" : std::string(value);
}

// A run folder holds no secret: what was written out in a header is not there.
void require_secrets(const GraderOptions& grader) {
  for (const HeaderList* headers : {&grader.headers, &grader.second.headers})
    for (const auto& [name, value] : *headers)
      if (value == "redacted")
        throw input_error("the grader's header " + name + " is not kept in the run's config.yaml",
                          "name the run file that has it: --config run.yaml");
  for (const SecretList* secrets : {&grader.secrets, &grader.second.secrets})
    for (const auto& [name, value] : *secrets)
      if (std::getenv(name.c_str()) == nullptr)
        throw input_error(
            "the environment variable " + name + " of the grader's headers is not set",
            "export it, as for the run itself");
}

// The grader to ask: the run's, or another run file's, with the overrides.
GraderOptions wanted_grader(const RegradeArguments& a) {
  for (const std::string& change : a.overrides)
    if (!change.starts_with("grader."))
      throw input_error("--set " + change + ": only keys of grader can be changed here",
                        "everything else is as the run had it");
  const fs::path file = a.config.empty() ? a.run_dir / "config.yaml" : a.config;
  GraderOptions grader = read_run_config(file, a.overrides, environment_or_name).grader;
  require_secrets(grader);
  return grader;
}

// The dataset of a split, which must be the one that the run was given.
std::vector<Task> tasks_of(const std::string& file, const std::string& key, const json& about) {
  if (file.empty()) return {};
  const auto inputs = about.value("inputs", json::object());
  const std::string had = inputs.value(key, "");
  const std::string has = describe_dataset(file);
  if (had != has)
    throw input_error(
        key + ": " + file + " has " + has + "; the run was given " + (had.empty() ? "none" : had),
        "put the rows back that its rollouts were made of: they are sent to the "
        "grader");
  return read_tasks(file);
}

// Those that the run began with, if they are still what is there: a resume may have added some or
// done without, and their rollouts then stay as they were graded.
std::vector<Task> canaries_of(const std::string& file, const json& about) {
  const bool known = about.value("inputs", json::object()).contains("data.canaries");
  return known ? tasks_of(file, "data.canaries", about) : std::vector<Task>();
}

// Whether there is something to grade: the agent's side ended by itself or by a limit, and was not
// lost to a tool server.
bool gradable(const Trajectory& t) {
  const bool whole = t.fault == FaultReason::kNone || t.fault == FaultReason::kMasked ||
                     t.fault == FaultReason::kGraderFault;
  return whole && t.end != EndReason::kNone && t.end != EndReason::kInfraExhausted;
}

class Regrading {
 public:
  Regrading(const RegradeArguments& arguments, const RunConfig& config)
      : arguments_(arguments),
        journal_(journal_of(arguments.run_dir)),
        setup_{config.model.path, config.model.chat, wanted_grader(arguments),
               config.rollout,    config.run.name,   "regrade-" + name_of(arguments)} {
    const json about = json::parse(journal_.about(), nullptr, false);
    train_ = tasks_of(config.data.train, "data.train", about.is_object() ? about : json::object());
    valid_ = tasks_of(config.data.valid, "data.valid", about.is_object() ? about : json::object());
    canaries_ = canaries_of(config.data.canaries, about.is_object() ? about : json::object());
    select(steps_of(arguments.steps));
  }

  const std::string& name() const { return setup_.name; }

  std::vector<Regraded> run() {
    wait_for_endpoints({}, setup_.grader, std::chrono::seconds(15));
    StoredGrader grader(setup_);
    std::size_t next = 0;
    grader.grade(
        [&]() -> std::optional<StoredRollout> {
          while (next < all_.size() && !all_[next].again) ++next;
          if (next == all_.size()) return std::nullopt;
          return read(all_[next++].row);
        },
        [&](const Trajectory& t) { places_.at(t.trace_id)->after = verdict_of(t); });
    return std::move(all_);
  }

 private:
  static std::string name_of(const RegradeArguments& a) {
    if (a.name.find('/') != std::string::npos) throw input_error("--name is no name of a file");
    return a.name.empty() ? fmt::format("{:%Y%m%dT%H%M%SZ}", fmt::gmtime(std::time(nullptr)))
                          : a.name;
  }

  StoredRollout read(std::int64_t row) const {
    StoredRollout rollout{journal_.read(row), nullptr};
    const Assignment& a = rollout.trajectory.assignment;
    const auto& tasks = a.split == Split::kTrain   ? train_
                        : a.split == Split::kValid ? valid_
                                                   : canaries_;
    rollout.task = &tasks.at(static_cast<std::size_t>(a.task_row));
    return rollout;
  }

  bool wanted(const Trajectory& t, const StepRange& steps) const {
    const Assignment& a = t.assignment;
    return gradable(t) && (a.split != Split::kCanary || !canaries_.empty()) &&
           a.step >= steps.first && a.step <= steps.last &&
           (arguments_.split.empty() || arguments_.split == to_string(a.split)) &&
           (!arguments_.only_passed || (t.fault == FaultReason::kNone && t.grade.passed));
  }

  void select(const StepRange& steps) {
    std::vector<std::size_t> chosen;
    for (std::int64_t row = 0, rows = journal_.rows(); row < rows; ++row) {
      const Trajectory t = journal_.read_texts(row);
      const StoredVerdict verdict = verdict_of(t);
      if (wanted(t, steps)) chosen.push_back(all_.size());
      all_.push_back({row, t.assignment, t.trace_id, false, verdict, verdict});
    }
    const auto most =
        arguments_.sample == 0 ? chosen.size() : static_cast<std::size_t>(arguments_.sample);
    const std::size_t count = std::min(most, chosen.size());
    for (std::size_t i = 0; i < count; ++i) all_[chosen[i * chosen.size() / count]].again = true;
    for (Regraded& one : all_)
      if (one.again) places_[one.trace_id] = &one;
  }

  const RegradeArguments& arguments_;
  JournalReader journal_;
  StoredGradingSetup setup_;
  std::vector<Task> train_, valid_, canaries_;
  std::vector<Regraded> all_;
  std::map<std::string, Regraded*> places_;  // of those graded again, by trace_id
};

// What was not graded again, one line a reason.
std::string ungraded_text(const std::vector<Regraded>& all) {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> reasons;  // count, first row
  for (const Regraded& r : all) {
    if (!r.again || change_of(r) != GradeChange::kUngraded) continue;
    auto& [count, row] = reasons.try_emplace(r.after.detail, 0, r.row).first->second;
    ++count;
  }
  std::string text;
  for (const auto& [why, where] : reasons)
    text += fmt::format("ungraded: {} rollouts, the first is row {}: {}\n", where.first,
                        where.second, why);
  return text;
}

std::string determinism_text(const RegradeSummary& summary) {
  if (summary.asked == summary.count(GradeChange::kSame))
    return summary.asked > 0 ? "every grade is the same as in the run\n" : "";
  return "if this grader is meant to be the run's own, it does not give the same grades again: a "
         "reward is then partly chance\n";
}

}  // namespace

int regrade_command(const RegradeArguments& arguments) {
  const RunConfig config = config_of_run(arguments.run_dir);
  Regrading regrading(arguments, config);
  const std::string file = regrading.name() + ".json";
  const std::vector<Regraded> all = regrading.run();
  const RegradeSummary summary = summarize_regrade(
      all, {.kind = advantage_kind(config.algorithm.advantage), .k = config.algorithm.passk_k});
  auto report = nlohmann::ordered_json::parse(regrade_json(summary));
  auto& ungraded = report["ungraded"] = nlohmann::ordered_json::array();
  for (const Regraded& r : all)
    if (r.again && change_of(r) == GradeChange::kUngraded)
      ungraded.push_back({{"row", r.row}, {"trace_id", r.trace_id}, {"why", r.after.detail}});
  constexpr auto kReplace = nlohmann::ordered_json::error_handler_t::replace;
  write_durably(arguments.run_dir / file, report.dump(1, ' ', false, kReplace) + "\n");
  if (arguments.json) {
    std::printf("%s\n", report.dump(-1, ' ', false, kReplace).c_str());
    return 0;
  }
  std::printf("%s%s%swrote %s\n", regrade_text(summary).c_str(), ungraded_text(all).c_str(),
              determinism_text(summary).c_str(), (arguments.run_dir / file).c_str());
  return 0;
}

}  // namespace rollcall
