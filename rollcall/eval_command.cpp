// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <system_error>
#include <utility>

#include "comms/error.h"
#include "comms/log.h"
#include "comms/rollout_link.h"
#include "comms/stop_signal.h"
#include "comms/world.h"
#include "model/model_spec.h"
#include "rollcall/commands.h"
#include "rollcall/evaluated_model.h"
#include "rollcall/evaluation_rules.h"
#include "rollcall/ranks.h"
#include "rollcall/run_setup.h"
#include "rollcall/worker_rank.h"
#include "trainer/evaluation.h"
#include "trainer/trial.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kNothingPublished = 0;  // bytes: every worker reads the model itself
constexpr const char* kPolicy = "policy";
constexpr const char* kBaseline = "baseline";

fs::path eval_folder(const RunConfig& config) { return run_directory(config) / "eval"; }
fs::path scratch_model(const RunConfig& config, const std::string& role) {
  return eval_folder(config) / (role + "-model");
}
fs::path journal_file(const RunConfig& config, const std::string& role) {
  return eval_folder(config) / (role == kBaseline ? "baseline.h5" : "journal.h5");
}

// What stands between this evaluation and a number that means what it seems to.
struct Doubts {
  std::vector<std::string> differences;  // from the training of the policies
  Overlap overlap;
};

struct Dataset {
  explicit Dataset(const std::string& path) : file(path), rows(read_tasks(path)) {}
  std::string file;
  std::vector<Task> rows;
};

void add_overlap(Overlap& overlap, const Dataset& train, const Dataset& valid) {
  Overlap more = overlap_of(train.file, train.rows, valid.file, valid.rows);
  if (more.rows > overlap.rows) overlap = std::move(more);
}

// Of a policy that comes from `run`; empty: from none that is known.
void add_doubts(Doubts& doubts, const RunConfig& config, const Dataset& valid, const fs::path& run,
                const char* whose) {
  if (run.empty()) return;
  const RunConfig trained = config_of_run(run);
  std::vector<std::string> differences = differences_of(trained, config);
  if (fs::exists(trained.data.train)) {
    const Dataset train(trained.data.train);
    add_overlap(doubts.overlap, train, valid);
    std::ranges::move(novelties(train.rows, valid.rows), std::back_inserter(differences));
  } else {
    log_warning(trained.data.train + ", from which " + run.string() +
                " learnt, is gone: whether its rows are held-out ones is not known");
  }
  for (const std::string& line : differences) doubts.differences.push_back(whose + line);
}

Doubts doubts_about(const RunConfig& config, const EvalArguments& a) {
  Doubts doubts;
  const Dataset valid(config.data.valid);
  add_overlap(doubts.overlap, Dataset(config.data.train), valid);
  add_doubts(doubts, config, valid, run_of_policy(a.checkpoint), "");
  if (!a.baseline.empty())
    add_doubts(doubts, config, valid, run_of_policy(a.baseline), "baseline: ");
  return doubts;
}

std::string lines_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += "\n  " + line;
  return text;
}

void refuse_unless_allowed(const Doubts& doubts, const EvalArguments& a) {
  if (doubts.overlap.rows > 0 && !a.allow_training_rows)
    throw input_error(std::to_string(doubts.overlap.rows) +
                          " rows of data.valid are training rows" + lines_of(doubts.overlap.places),
                      "hold them out of the training, or say --allow-training-rows");
  if (!doubts.differences.empty() && !a.allow_differences)
    throw input_error("this evaluation shows the policy another world than its training did" +
                          lines_of(doubts.differences),
                      "evaluate with the run file that it was trained with, or say "
                      "--allow-differences");
}

// The model at a.model_dir or a.checkpoint stands for itself, without the run file's adapter.
void use_model(RunConfig& config, const fs::path& dir) {
  if (dir.empty()) return;
  config.model.path = fs::absolute(dir).string();
  config.model.adapter.clear();
}

// --- The process that a person starts.

// The command line again, with what the ranks have to know.
class RankArguments {
 public:
  RankArguments(const EvalArguments& a, const std::string& role, const fs::path& model_dir)
      : words_(a.run.argv, a.run.argv + a.run.argc), run_(a.run) {
    words_.insert(words_.end(), {"--as", role});
    if (!model_dir.empty()) words_.insert(words_.end(), {"--model-dir", model_dir.string()});
    for (std::string& word : words_) pointers_.push_back(word.data());
    run_.argc = static_cast<int>(pointers_.size());
    pointers_.push_back(nullptr);
    run_.argv = pointers_.data();
  }
  RankArguments(const RankArguments&) = delete;
  RankArguments& operator=(const RankArguments&) = delete;

  const RunArguments& get() const { return run_; }

 private:
  std::vector<std::string> words_;
  std::vector<char*> pointers_;
  RunArguments run_;
};

// The directory that the ranks load; empty: the run file's model. Finds what is wrong with it.
fs::path prepared(RunConfig config, const fs::path& named, const std::string& role) {
  fs::path dir;
  if (!named.empty()) {
    const EvaluatedModel model = find_evaluated_model(named, scratch_model(config, role));
    make_evaluated_model(model);
    dir = model.dir;
  }
  use_model(config, dir);
  check_inputs(config, /*began=*/false);
  return dir;
}

// What was made for these ranks alone.
class ScratchModels {
 public:
  explicit ScratchModels(const RunConfig& config) : config_(config) {}
  ~ScratchModels() {
    std::error_code ignored;
    for (const char* role : {kPolicy, kBaseline})
      fs::remove_all(scratch_model(config_, role), ignored);
  }
  ScratchModels(const ScratchModels&) = delete;
  ScratchModels& operator=(const ScratchModels&) = delete;

 private:
  const RunConfig& config_;
};

int start(const EvalArguments& a, const RunConfig& config) {
  const ScratchModels scratch(config);
  const fs::path policy = prepared(config, a.checkpoint, kPolicy);
  const fs::path baseline =
      a.baseline.empty() ? a.baseline : prepared(config, a.baseline, kBaseline);
  refuse_unless_allowed(doubts_about(config, a), a);
  if (!a.baseline.empty()) {
    const RankArguments arguments(a, kBaseline, baseline);
    const int code = start_ranks(config.cluster, arguments.get()).code;
    if (code != 0) return code;
  }
  return start_ranks(config.cluster, RankArguments(a, kPolicy, policy).get()).code;
}

// --- The ranks.

std::vector<Collected> collect(const TrainSetup& setup, const fs::path& journal, World& world,
                               const RunConfig& config, const StopSignal& stop) {
  RolloutServer server(world, config.cluster, kNothingPublished);
  Trial trial(setup, read_model_spec(config.model.path), server, journal,
              [&] { return stop.stop_requested(); });
  auto collected = trial.sample(plan_evaluation(setup, 0), "held-out");
  server.shut_down(std::chrono::seconds(5));
  return collected;
}

// The rollouts that the ranks before these left, in the order of the plan; without their tokens.
std::vector<Collected> read_collected(const fs::path& journal) {
  const JournalReader reader(journal);
  std::vector<Collected> collected;
  for (std::int64_t row = 0; row < reader.rows(); ++row)
    collected.push_back({row, std::make_shared<const Trajectory>(reader.read_row(row)), true});
  std::ranges::sort(collected, {}, [](const Collected& c) {
    return std::pair(c.trajectory->assignment.group, c.trajectory->assignment.member);
  });
  return collected;
}

EvaluationReport report_of(const EvalArguments& a, const RunConfig& config,
                           std::span<const Collected> collected) {
  const std::uint64_t seed = config.run.seed;
  const Doubts doubts = doubts_about(config, a);
  const std::string model =
      a.checkpoint.empty() ? config.model.path : fs::absolute(a.checkpoint).string();
  EvaluationReport report{.dataset = config.data.valid,
                          .policy = evaluate_policy(model, collected, seed),
                          .baseline = {},
                          .comparison = {},
                          .differences = doubts.differences,
                          .training_rows = doubts.overlap.rows};
  if (a.baseline.empty()) return report;
  report.baseline = evaluate_policy(fs::absolute(a.baseline).string(),
                                    read_collected(journal_file(config, kBaseline)), seed);
  report.comparison = compare_paired(report.policy.outcomes, report.baseline->outcomes, seed);
  return report;
}

ExitCode run_lead(const EvalArguments& a, const RunConfig& config, World& world,
                  const StopSignal& stop) {
  use_threads(config.policy.lead_samples() ? learner_threads(1) : 1);
  TrainSetup setup = make_train_setup(config);
  setup.canary_tasks = 0;  // no part of the report
  const auto collected = collect(setup, journal_file(config, a.role), world, config, stop);
  if (a.role == kBaseline) return ExitCode::kDone;
  const EvaluationReport report = report_of(a, config, collected);
  std::fprintf(stderr, "%s", evaluation_report_text(report).c_str());
  std::printf("%s\n", evaluation_report_json(report).c_str());
  std::fflush(stdout);
  return ExitCode::kDone;
}

// Of ranks that somebody else's launcher started: nothing was looked at or made before.
void check_unstarted(const EvalArguments& a, const RunConfig& config) {
  if (!a.baseline.empty())
    throw input_error("--baseline needs two starts of the ranks",
                      "start rollcall eval itself, without mpirun or srun");
  const fs::path scratch = scratch_model(config, kPolicy);
  if (!a.checkpoint.empty() && !find_evaluated_model(a.checkpoint, scratch).checkpoint.empty())
    throw input_error(a.checkpoint.string() + " is a checkpoint, not a model directory",
                      "start rollcall eval itself, without mpirun or srun, or export it first");
  refuse_unless_allowed(doubts_about(config, a), a);
}

ExitCode run_eval_rank(EvalArguments a, RunConfig config, World& world, const StopSignal& stop) {
  if (a.role.empty()) {
    check_unstarted(a, config);
    a.role = kPolicy;
    if (!a.checkpoint.empty())
      a.model_dir = find_evaluated_model(a.checkpoint, scratch_model(config, kPolicy)).dir;
  }
  use_model(config, a.model_dir);
  if (world.rank() > 0) return run_worker_rank(config, world, WeightSource::kModelFiles);
  return run_lead(a, config, world, stop);
}

}  // namespace

int eval_command(const EvalArguments& a) {
  RunConfig config = load_run_config(a.run, Purpose::kTrain);
  config.cluster.learners = 1;  // nothing is learnt: one rank leads
  if (config.data.valid.empty())
    throw input_error("rollcall eval needs data.valid", "name a held-out dataset in the run file");
  if (!under_launcher()) return start(a, config);
  return run_rank(config, [&](World& world, const StopSignal& stop) {
    return run_eval_rank(a, config, world, stop);
  });
}

}  // namespace rollcall
