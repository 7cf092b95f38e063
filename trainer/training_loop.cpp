// SPDX-License-Identifier: Apache-2.0
#include "trainer/training_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "comms/communicator.h"
#include "comms/durable_file.h"
#include "comms/error.h"
#include "comms/fault_injection.h"
#include "comms/log.h"
#include "comms/rollout_link.h"
#include "model/published_weights.h"
#include "trainer/alarm_watch.h"
#include "trainer/arrivals.h"
#include "trainer/batch_scaler.h"
#include "trainer/checkpoint.h"
#include "trainer/collector.h"
#include "trainer/discard_watch.h"
#include "trainer/endpoint_watch.h"
#include "trainer/evaluation.h"
#include "trainer/export.h"
#include "trainer/gradient_watch.h"
#include "trainer/journal.h"
#include "trainer/lead_sampler.h"
#include "trainer/learner.h"
#include "trainer/metric_names.h"
#include "trainer/metrics.h"
#include "trainer/progress.h"
#include "trainer/report.h"
#include "trainer/resume_check.h"
#include "trainer/step_making.h"
#include "trainer/step_metrics.h"
#include "trainer/step_plan.h"
#include "trainer/trial.h"
#include "trainer/update.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;

class TrainingLoop {
 public:
  TrainingLoop(const TrainSetup& setup, const ModelSpec& spec, Communicator& communicator,
               RolloutServer& server, std::function<bool()> stop_requested)
      : setup_(setup),
        server_(server),
        stop_requested_(std::move(stop_requested)),
        spec_(spec),
        updater_(setup, spec, communicator),
        scaler_(setup.batch, setup.train_tasks, setup.run.seed),
        sampler_(setup.lead_engine ? std::make_unique<LeadSampler>(spec, *setup.lead_engine, server)
                                   : nullptr),
        progress_(setup.live_progress),
        alarms_(setup.alarms),
        gradients_(setup.alarms.grad_norm) {}

  RunResult run() {
    start();
    publish();
    evaluate_if(step_ == 0 || evaluation_due());
    while (step_ < setup_.run.steps && !stopping_) {
      train_step();
      if (stopping_) break;
      if (due(setup_.checkpoint.every_steps)) save();
      evaluate_if(evaluation_due());
    }
    return stopping_ ? stop() : finish();
  }

 private:
  bool due(std::int64_t every) const { return every > 0 && step_ % every == 0; }
  bool evaluation_due() const { return due(setup_.eval.every_steps) && step_ < setup_.run.steps; }
  fs::path checkpoints() const { return setup_.run_dir / "checkpoints"; }
  fs::path journal_file() const { return setup_.run_dir / "journal" / "learner-0.h5"; }

  // To the person who watches, and to the log.
  void tell(const std::string& line) {
    progress_.keep(line);
    log_debug(line);
  }

  // Nothing has been changed by a start that fails: what cannot be read may be put right.
  void start() try { start_or_resume(); } catch (const Error& error) {
    if (error.exit_code() != ExitCode::kFailure) throw;
    throw Error(error.what(), error.what_to_do(), ExitCode::kStopped);
  }

  void start_or_resume() {
    fs::create_directories(journal_file().parent_path());
    fs::create_directories(checkpoints());
    const std::string about = this->about();  // of the weights at model.path
    const auto newest = newest_checkpoint(checkpoints());
    TrainState state;
    if (newest) {
      state = updater_.restore(*newest);
      step_ = state.step;
      scaler_.restore(state.sampler);
    }
    const fs::path config = setup_.run_dir / "config.yaml";
    result_ = read_result(setup_.run_dir).value_or(RunResult{});
    const bool other_updates =
        check_resume({config, journal_file(), newest, state.journal_rows}, about);
    const bool journalled = fs::exists(journal_file());
    journal_ = std::make_unique<Journal>(journal_file(), about);
    collector_ = std::make_unique<Collector>(server_, *journal_);
    if (journalled) recover(state.journal_rows, other_updates);
    write_config(setup_.run_dir, step_, setup_.effective_config);  // last: the next start compares
    metrics_ = std::make_unique<MetricsLog>(setup_.run_dir, step_);
    for (const MetricsLine& line : read_metrics(setup_.run_dir / "metrics.jsonl")) {
      alarms_.add(line.values);
      gradients_.add(value_of(line.values, metric::kGradNormL2),
                     value_of(line.values, metric::kGradientSpikes) > 0);
    }
    stops_ = alarms_.forget_stops();
    if (step_ >= setup_.run.steps) raise_stops();
    if (step_ == 0) result_ = RunResult{};
    result_.status = RunStatus::kRunning;
    write_result(setup_.run_dir, result_);
  }

  // The updates after the checkpoint, of which the journal holds rows from `first_row` on, are done
  // again. Where they end in other weights, later rollouts are not of this policy.
  void recover(std::int64_t first_row, bool other_updates) {
    std::int64_t end = journal_->rows();
    std::size_t recovered = 0;
    {
      const JournalReader reader(journal_file());
      if (other_updates) end = end_of_step(reader, first_row, step_);
      recovered = collector_->recover(reader, first_row, end);
    }
    journal_->truncate(end, step_);
    log_info(
        fmt::format("resuming {} at step {}; {} rollouts of later steps are in the journal and "
                    "will not be sampled again",
                    setup_.run.name, step_, recovered));
  }

  // What the journal says of its run: what the setup says, and the weights the run began with.
  std::string about() const {
    auto about = nlohmann::ordered_json::parse(setup_.about);
    about["initial_weights_xxh3"] = fingerprint(spec_, updater_.policy().source());
    return about.dump();
  }

  void publish() {
    if (sampler_) return sampler_->load(step_, updater_.policy().source());
    server_.publish(step_, [this](std::span<std::byte> out) {
      fault_point("publish");
      write_published(spec_, policy_dtype(setup_.dtype), updater_.policy().source(), out);
    });
  }

  Collecting next_move() {
    if (!stop_requested_()) return Collecting::kOn;
    const auto now = Clock::now();
    if (!stop_by_) {
      stop_by_ = now + setup_.stop_grace;
      log_info(fmt::format("asked to stop at step {}, with {} rollouts in flight", step_,
                           server_.in_flight()));
    }
    return now < *stop_by_ ? Collecting::kFinish : Collecting::kLeave;
  }

  // Collects while the progress line shows how far it is; empty if the run shall stop.
  std::vector<Collected> collect(std::span<const Assignment> plan, std::string_view what) {
    stopping_ = stop_requested_();
    if (stopping_) return {};
    const auto begin = Clock::now();
    Arrivals arrivals;
    const auto arrived = [&](const Trajectory& t) {
      all_arrivals_.add(t);
      note_arrival(t, fmt::format("step {}", step_), arrivals, progress_);
    };
    auto collected = collector_->collect(plan, arrived, [&] {
      const Collecting next = next_move();
      updater_.keep_waiting();
      std::string waiting = watch_endpoints(endpoints_, server_, progress_);
      if (waiting.empty())
        waiting = server_.in_flight() > 0 ? "  waiting for rollouts" : "  waiting for workers";
      progress_.show(fmt::format("step {}/{}  {} {}/{}  in flight {}{}{}{}  {}", step_,
                                 setup_.run.steps, what, arrivals.count(), plan.size(),
                                 server_.in_flight(), next == Collecting::kOn ? "" : "  stopping",
                                 waiting, arrivals.left_out(), last_line_));
      return next;
    });
    stopping_ = collected.empty() && !plan.empty();
    seconds_collecting_ = seconds_since(begin);
    return collected;
  }

  // The step's rollouts; empty if the run shall stop.
  std::vector<Collected> collect_step(StepMetrics& record) {
    const RolloutSource workers{
        .collect =
            [&](std::span<const Assignment> plan) {
              auto round = collect(plan, "rollouts");
              record.seconds_rollout += seconds_collecting_;
              return round;
            },
        .start =
            [&](std::span<const Assignment> plan) {
              if (!stop_requested_()) collector_->start(plan);
            },
    };
    auto collected = collect_rounds(setup_, step_, scaler_, workers, record);
    if (!stopping_) collector_->close(step_, Split::kTrain);
    return collected;
  }

  void train_step() {
    const auto begin = Clock::now();
    StepMetrics record;
    const auto collected = collect_step(record);
    if (stopping_) return;
    auto mark = Clock::now();
    const std::int64_t committed_rows = journal_->commit();
    record.seconds_journal = seconds_since(mark);
    refuse_if_all_lost(collected, "the step");
    refuse_if_many_lost(collected, setup_.alarms.discard_share, step_);

    mark = Clock::now();
    progress_.show(fmt::format("step {}/{}  update  {}", step_, setup_.run.steps, last_line_));
    const StepSize size{scaler_.step_size(), gradients_.limit()};
    StepBatch batch = update_step(
        setup_, updater_, collected, committed_rows, step_, size, [&] { collector_->absorb(); },
        record);
    record.seconds_update = seconds_since(mark);
    journal_->append_uses(batch.uses);
    scaler_.end_step();
    const UpdateStats& learnt = record.update.learner;
    const bool went_back = record.update.policy_learns &&
                           gradients_.add(learnt.grad_norm_l2, learnt.spiked) && roll_back();
    ++step_;
    mark = Clock::now();
    publish();
    record.seconds_publish = seconds_since(mark);
    record.seconds_step = seconds_since(begin);
    count_workers(record);
    watch_discards(collected);
    MetricList metrics = step_metrics(record, batch.signal, collected);
    for (const MetricList& more : {discards_.metrics(), endpoints_.take_metrics()})
      metrics.insert(metrics.end(), more.begin(), more.end());
    last_line_ = step_line(record, batch.signal, collected);
    tell(fmt::format("step {}/{}  {}", step_, setup_.run.steps, last_line_));
    log_metrics(std::move(metrics));
    if (went_back) save();  // a resumed run must not go back to what it left
  }

  // What the metrics are alarming about is said, and stands in them.
  void log_metrics(MetricList metrics) {
    const auto alarms = alarms_.add(metrics);
    std::ranges::copy(alarms_.metrics(), std::back_inserter(metrics));
    metrics_->append(step_, metrics);
    for (const Alarm& alarm : alarms) raise_alarm(alarm);
  }

  void raise_stops() {
    for (const Alarm& alarm : std::exchange(stops_, {})) raise_alarm(alarm);
  }

  void raise_alarm(const Alarm& alarm) {
    const std::string text = fmt::format("step {}: {} (alarms.{})", step_, alarm.text, alarm.name);
    progress_.clear();
    if (alarm.action == AlarmAction::kStop) {
      save();
      throw Error(text,
                  alarm.what_to_do + "; alarms." + alarm.name +
                      ": warn lets the run go on, which resumes here",
                  ExitCode::kAlarm);
    }
    log_warning(text + "; " + alarm.what_to_do);
  }

  // Takes up weights and moments of the newest checkpoint; true if there is one.
  bool roll_back() {
    const auto newest = newest_checkpoint(checkpoints());
    progress_.clear();
    log_warning(
        fmt::format("step {}: the gradients of the last updates were far above the usual "
                    "(alarms.grad_norm): {}",
                    step_ + 1,
                    newest ? "the policy goes back to " + newest->filename().string()
                           : "there is no checkpoint to go back to"));
    if (newest) updater_.restore(*newest);
    return newest.has_value();
  }

  void count_workers(StepMetrics& record) {
    const auto workers = server_.workers();
    record.workers = static_cast<int>(std::ranges::count(workers, true, &WorkerStatus::alive));
    const int lost = static_cast<int>(workers.size()) - record.workers;
    for (const WorkerStatus& worker : workers)
      if (worker.alive && worker.weights_version >= 0)
        record.seconds_load_max =
            std::max(record.seconds_load_max.value_or(0), worker.weights_seconds);
    record.workers_lost = lost - std::exchange(workers_lost_, lost);
  }

  // Warns when faults begin to look as if they chose their tasks.
  void watch_discards(std::span<const Collected> collected) {
    discards_.add(collected);
    const auto found = discards_.finding();
    const double limit = setup_.alarms.discard_reward_z;
    const bool suspicious = found && limit > 0 && std::abs(found->z) > limit;
    if (suspicious && !std::exchange(suspicious_, suspicious)) {
      progress_.clear();
      log_warning(fmt::format(
          "faults do not strike at random: the {} groups that lost rollouts earn {:+.3f} more than "
          "the {} that did not (z = {:.1f}, alarms.discard_reward_z); see which tools fault",
          found->groups_with_losses, found->gap, found->groups_without, found->z));
    }
    suspicious_ = suspicious;
  }

  // In this life of the run or, before a resume, in an earlier one.
  bool evaluated() const {
    const auto lines = read_metrics(setup_.run_dir / "metrics.jsonl");
    const bool logged = std::any_of(lines.begin(), lines.end(), [this](const MetricsLine& line) {
      return line.step == step_ && line.values.front().first == metric::kEvalPassAt1;
    });
    return logged && (step_ == 0 ? result_.before : result_.after).has_value();
  }

  void evaluate_if(bool wanted) {
    if (!wanted || setup_.valid_tasks == 0 || stopping_) return;
    if (evaluated()) {  // by an earlier life of the run, which it may have ended
      std::erase_if(stops_, [](const Alarm& alarm) { return !alarm.of_evaluation; });
      return raise_stops();
    }
    const auto plan = plan_evaluation(setup_, step_);
    const auto collected = collect(plan, "held-out");
    if (stopping_) return;
    collector_->close(step_, Split::kValid);
    journal_->commit();
    refuse_if_all_lost(collected, "the evaluation");
    const Evaluation e = evaluate_rollouts(collected);
    (step_ == 0 ? result_.before : result_.after) = e;
    write_result(setup_.run_dir, result_);  // before the metrics, which evaluated() asks first
    tell(fmt::format("step {}/{}  {}", step_, setup_.run.steps, evaluation_line(e)));
    MetricList metrics = evaluation_metrics(e);
    if (const auto second = second_pass_at_1(collected))
      metrics.emplace_back(metric::kEvalSecondPassAt1, *second);
    if (const auto rate = canary_pass_rate(collected))
      metrics.emplace_back(metric::kCanaryPassRate, *rate);
    log_metrics(std::move(metrics));
  }

  void save() {
    TrainState state;
    state.step = state.version = step_;
    journal_->commit();
    state.journal_rows = collector_->first_open_row();
    const std::int64_t rows = state.journal_rows;
    state.sampler = scaler_.state();
    result_.checkpoint =
        updater_.save(checkpoints(), std::move(state), setup_.checkpoint.keep).string();
    result_.step = step_;
    write_result(setup_.run_dir, result_);
    saved_step_ = step_;
    saved_rows_ = rows;
    log_debug("saved " + result_.checkpoint);
  }

  // The run stays resumable: whatever of the open step arrived is in the journal, behind the rows
  // that the checkpoint counts.
  RunResult stop() {
    collector_->finish([this] {
      updater_.keep_waiting();
      return next_move();
    });
    if (saved_step_ != step_) save();
    journal_->commit();
    result_.status = RunStatus::kStopped;
    result_.exit_code = static_cast<int>(ExitCode::kStopped);
    result_.message = fmt::format("stopped at step {}; start the run again to go on", step_);
    conclude();
    return result_;
  }

  RunResult finish() {
    evaluate_if(step_ > 0);
    if (stopping_) return stop();
    // Again behind an evaluation: with rows behind its checkpoint a run is in the midst of a step.
    if (saved_step_ != step_ || saved_rows_ != collector_->first_open_row()) save();
    const fs::path out = setup_.run_dir / "export";
    export_model(setup_.model_dir, updater_.policy().source(), setup_.dtype, out);
    result_.export_dir = out.string();
    if (const LoraAdapter* adapter = updater_.policy().adapter()) {
      const fs::path adapter_out = setup_.run_dir / "adapter";
      export_adapter(*adapter, setup_.model_dir, adapter_out);
      result_.adapter_dir = adapter_out.string();
    }
    result_.status = RunStatus::kDone;
    result_.exit_code = 0;
    conclude();
    return result_;
  }

  void conclude() {
    progress_.finish();
    if (all_arrivals_.faults() > 0)
      log_warning(fmt::format(
          "{} of {} rollouts since this start ended in a fault and are left "
          "out, most by {}; rollcall inspect and the report show them",
          all_arrivals_.faults(), all_arrivals_.count(), all_arrivals_.most_frequent_fault()));
    result_.step = step_;
    result_.report = (setup_.run_dir / "report.html").string();
    journal_.reset();
    write_result(setup_.run_dir, result_);
    write_report(setup_.run_dir);
    log_debug(result_.message.empty() ? "done" : result_.message);
    updater_.dismiss();
  }

  const TrainSetup& setup_;
  RolloutServer& server_;
  std::function<bool()> stop_requested_;
  const ModelSpec& spec_;
  Updater updater_;
  BatchScaler scaler_;
  std::unique_ptr<LeadSampler> sampler_;  // null: workers sample
  Progress progress_;
  AlarmWatch alarms_;
  std::vector<Alarm> stops_;  // that earlier lives of the run have ended with
  GradientWatch gradients_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Collector> collector_;
  std::unique_ptr<MetricsLog> metrics_;
  RunResult result_;
  std::int64_t step_ = 0, saved_step_ = -1, saved_rows_ = 0;
  bool stopping_ = false;
  std::optional<Clock::time_point> stop_by_;  // once it was asked to
  double seconds_collecting_ = 0;
  int workers_lost_ = 0;  // since the start
  Arrivals all_arrivals_;
  EndpointWatch endpoints_;
  DiscardWatch discards_;
  bool suspicious_ = false;
  std::string last_line_;
};

}  // namespace

RunResult run_lead_learner(const TrainSetup& setup, const ModelSpec& spec,
                           Communicator& communicator, RolloutServer& server,
                           const std::function<bool()>& stop_requested) {
  return TrainingLoop(setup, spec, communicator, server, stop_requested).run();
}

void run_following_learner(const TrainSetup& setup, const ModelSpec& spec,
                           Communicator& communicator) {
  Updater(setup, spec, communicator).follow();
}

}  // namespace rollcall
