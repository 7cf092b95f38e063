// SPDX-License-Identifier: Apache-2.0
#include "trainer/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "comms/communicator.h"
#include "comms/error.h"
#include "model/stored_weights.h"
#include "trainer/checkpoint.h"
#include "trainer/gradient_watch.h"
#include "trainer/journal.h"
#include "trainer/metric_names.h"
#include "trainer/metrics.h"
#include "trainer/resume_check.h"
#include "trainer/step_making.h"
#include "trainer/step_metrics.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json about_of(const std::string& text) {
  json about = json::parse(text, nullptr, false);
  return about.is_object() ? about : json::object();
}

std::string word(const json& about, const char* key) {
  const auto found = about.find(key);
  return found != about.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// Kernels that give the same bits: which of them a process takes is a matter of speed.
bool same_bits(const std::string& a, const std::string& b) {
  const auto fuses = [](const std::string& isa) { return isa.starts_with("avx"); };
  return a == b || (fuses(a) && fuses(b));
}

// What may explain a difference.
std::vector<std::string> notes_of(const std::string& began, const std::string& now) {
  std::vector<std::string> notes;
  const json first = about_of(began), current = about_of(now);
  for (const char* key : {"rollcall", "torch", "kernels"}) {
    const std::string was = word(first, key), is = word(current, key);
    if (!same_bits(was, is))
      notes.push_back(fmt::format("the run began with {} {}, this is {}", key, was, is));
  }
  const RunChanges changes = run_changes(began, now, std::nullopt, /*open_rows=*/false);
  for (const auto* list : {&changes.refused, &changes.accepted})
    for (const std::string& change : *list)
      notes.push_back("config.yaml is not what the run began with: " + change);
  return notes;
}

// As a policy of `dtype` is exported.
TensorSource rounded(TensorSource source, at::ScalarType dtype) {
  return [source = std::move(source), dtype](const std::string& name) {
    return source(name).detach().to(dtype);
  };
}

class Replayer {
 public:
  Replayer(const TrainSetup& setup, std::span<const RunPeriod> periods, const ModelSpec& spec,
           Communicator& communicator)
      : setup_(setup),
        periods_(periods),
        spec_(spec),
        communicator_(communicator),
        updater_(setup_, spec, communicator),
        scaler_(setup.batch, setup.train_tasks, setup.run.seed),
        gradients_(setup.alarms.grad_norm),
        journal_(setup.run_dir / "journal" / "learner-0.h5"),
        metrics_(read_metrics(setup.run_dir / "metrics.jsonl")) {
    for (const UpdateUse& use : journal_.uses()) uses_[use.step].push_back(use);
  }

  Replay run(std::int64_t last, const std::function<void(const ReplayedStep&)>& done) {
    require_step(last);
    Replay replay;
    replay.notes = notes_of(journal_.about(), setup_.about);
    replay.from = restore(last);
    while (step_ <= last) {
      replay.steps.push_back(make_step());
      done(replay.steps.back());
      if (!replay.steps.back().differences.empty()) break;
      updater_.keep_waiting();
    }
    updater_.dismiss();
    return replay;
  }

 private:
  void require_step(std::int64_t step) const {
    if (uses_.contains(step)) return;
    const std::string has =
        uses_.empty()
            ? "none"
            : fmt::format("those of steps {} to {}", uses_.begin()->first, uses_.rbegin()->first);
    throw input_error(
        fmt::format("the journal of {} has no update of step {}; of updates it has {}",
                    setup_.run_dir.string(), step, has),
        "name one of those: step N made policy version N + 1");
  }

  // Where the replay begins.
  std::string restore(std::int64_t last) {
    const fs::path checkpoints = setup_.run_dir / "checkpoints";
    if (const auto newest = newest_checkpoint(checkpoints, last)) {
      const TrainState state = updater_.restore(*newest);
      step_ = state.step;
      scaler_.restore(state.sampler);
      for (const MetricsLine& line : metrics_)
        if (line.step <= step_)
          gradients_.add(value_of(line.values, metric::kGradNormL2),
                         value_of(line.values, metric::kGradientSpikes) > 0);
      return "checkpoint " + newest->filename().string();
    }
    const std::string began = word(about_of(journal_.about()), "initial_weights_xxh3");
    if (began != fingerprint(spec_, updater_.policy().source()))
      throw input_error(
          fmt::format("no checkpoint at or before step {} is left, and the weights in {} are not "
                      "those that the run began with",
                      last, setup_.model_dir.string()),
          "put those weights back; or choose a later step; checkpoint.keep says how many "
          "checkpoints a run keeps");
    return "the model that the run began with";
  }

  // Makes the step by what it was made by: the updater looks at the setup whenever it learns.
  void take_period() {
    const RunPeriod& period = period_of(periods_, step_);
    if (&period == period_) return;
    const bool reference = setup_.algorithm.kl.coefficient > 0;
    if (reference != (period.algorithm.kl.coefficient > 0) ||
        (communicator_.size() > 1 && period_ != nullptr))
      throw input_error(
          fmt::format("no checkpoint is left between step {} and a change of the configuration "
                      "behind it, which this replay cannot cross",
                      step_),
          "replay a step before the change, or one behind the next checkpoint");
    scaler_ = scaler_.with(period.batch);
    setup_.batch = period.batch;
    setup_.algorithm = period.algorithm;
    setup_.baseline_only = period.baseline_only;
    gradients_.watch(period.grad_norm);
    period_ = &period;
  }

  ReplayedStep make_step() {
    take_period();
    ReplayedStep result;
    result.step = step_;
    StepMetrics record;
    rows_ = rows_of_step();
    const auto collected = collect_rounds(
        setup_, step_, scaler_,
        {[&](std::span<const Assignment> plan) { return take(plan, result); }}, record);
    if (!result.differences.empty()) return result;
    const StepSize size{scaler_.step_size(), gradients_.limit()};
    const StepBatch batch = update_step(
        setup_, updater_, collected, journal_.committed_rows(), step_, size, [] {}, record);
    scaler_.end_step();
    watch_gradient(record.update);
    result.rollouts = batch.signal.rollouts;
    result.groups = batch.signal.groups;
    result.groups_signal = batch.signal.groups_signal;
    add(result, compare_uses(uses_.at(step_), batch.uses), result.uses);
    ++step_;
    compare_numbers(step_metrics(record, batch.signal, collected), result);
    compare_weights(result);
    return result;
  }

  // As the run did: after some updates far above the usual it goes back.
  void watch_gradient(const StepUpdate& update) {
    if (!update.policy_learns) return;
    if (!gradients_.add(update.learner.grad_norm_l2, update.learner.spiked)) return;
    const auto newest = newest_checkpoint(setup_.run_dir / "checkpoints", step_);
    if (newest) updater_.restore(*newest);
  }

  static void add(ReplayedStep& result, ReplayComparison comparison, std::int64_t& count) {
    count += comparison.compared;
    std::ranges::move(comparison.differences, std::back_inserter(result.differences));
  }

  // group, member -> rollout, of what the update of this step used.
  std::map<std::pair<std::int64_t, std::int32_t>, Collected> rows_of_step() const {
    std::map<std::pair<std::int64_t, std::int32_t>, Collected> rows;
    const auto uses = uses_.find(step_);
    if (uses == uses_.end())
      throw input_error(fmt::format("the journal has no update of step {}", step_));
    for (const UpdateUse& use : uses->second) {
      if (use.row >= journal_.committed_rows())
        throw input_error(fmt::format("step {} used row {} of the journal, which has {} rows",
                                      step_, use.row, journal_.committed_rows()),
                          "put a whole copy of the journal back");
      const auto t = std::make_shared<const Trajectory>(journal_.read(use.row));
      const auto key = std::pair(t->assignment.group, t->assignment.member);
      rows.insert_or_assign(key, Collected{use.row, t, true});
    }
    return rows;
  }

  // The rollouts of a round; none if the journal has others than these settings plan.
  std::vector<Collected> take(std::span<const Assignment> plan, ReplayedStep& result) {
    std::vector<Collected> round;
    for (const Assignment& wanted : plan) {
      const auto found = rows_.find({wanted.group, wanted.member});
      const auto text = [](const Assignment& a) {
        return fmt::format("task {}, seed {}, version {}", a.task_row, a.seed, a.version);
      };
      if (found == rows_.end() || !same_work(found->second.trajectory->assignment, wanted)) {
        result.differences.push_back(
            {fmt::format("what group {}, member {} was to do", wanted.group, wanted.member),
             found == rows_.end() ? "nothing" : text(found->second.trajectory->assignment),
             text(wanted)});
        return {};
      }
      round.push_back(std::move(found->second));
    }
    return round;
  }

  void compare_numbers(const MetricList& replayed, ReplayedStep& result) const {
    result.loss = value_of(replayed, metric::kLoss);
    result.grad_norm_l2 = value_of(replayed, metric::kGradNormL2);
    for (const MetricsLine& line : metrics_) {
      const bool of_update = std::ranges::any_of(
          line.values, [](const auto& value) { return value.first == metric::kLoss; });
      if (line.step == step_ && of_update)
        return add(result, compare_metrics(line, replayed), result.numbers);
    }
  }

  void compare_weights(ReplayedStep& result) {
    std::int64_t ignored = 0;
    const fs::path folder = checkpoint_folder(setup_.run_dir / "checkpoints", step_);
    if (fs::exists(folder)) {
      TrainState state;
      state.step = state.version = step_;
      state.sampler = scaler_.state();
      const TrainState replayed = updater_.state(std::move(state));
      add(result, compare_states(load_checkpoint(folder), replayed), ignored);
      result.weights = folder.filename().string();
    } else if (const fs::path exported = setup_.run_dir / "export"; is_export(exported)) {
      const auto dtype = policy_dtype(setup_.dtype);
      const std::string recorded =
          fingerprint(spec_, StoredWeights(exported, spec_, dtype).source());
      const std::string replayed = fingerprint(spec_, rounded(updater_.policy().source(), dtype));
      if (recorded != replayed) result.differences.push_back({"weights, xxh3", recorded, replayed});
      result.weights = "export";
    }
  }

  // Whether the run's export is of the step that was reached.
  bool is_export(const fs::path& exported) const {
    const auto run = read_result(setup_.run_dir);
    return run && run->status == RunStatus::kDone && run->step == step_ && fs::exists(exported);
  }

  TrainSetup setup_;  // of the step
  std::span<const RunPeriod> periods_;
  const RunPeriod* period_ = nullptr;
  const ModelSpec& spec_;
  Communicator& communicator_;
  Updater updater_;
  BatchScaler scaler_;
  GradientWatch gradients_;
  JournalReader journal_;
  std::vector<MetricsLine> metrics_;
  std::map<std::int64_t, std::vector<UpdateUse>> uses_;  // by step
  std::map<std::pair<std::int64_t, std::int32_t>, Collected> rows_;
  std::int64_t step_ = 0;
};

}  // namespace

bool Replay::identical() const {
  return std::ranges::all_of(steps, [](const auto& step) { return step.differences.empty(); });
}

Replay replay_steps(const TrainSetup& setup, std::span<const RunPeriod> periods,
                    const ModelSpec& spec, Communicator& communicator, std::int64_t step,
                    const std::function<void(const ReplayedStep&)>& done) {
  return Replayer(setup, periods, spec, communicator).run(step, done);
}

}  // namespace rollcall
