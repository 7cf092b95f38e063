// SPDX-License-Identifier: Apache-2.0
#include "trainer/trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "comms/error.h"
#include "comms/log.h"
#include "comms/rollout_link.h"
#include "model/stored_weights.h"
#include "model/weights.h"

namespace rollcall {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

const fs::path& without_file(const fs::path& file) {
  fs::create_directories(file.parent_path());
  fs::remove(file);
  return file;
}

double seconds_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

void note_arrival(const Trajectory& t, const std::string& where, Arrivals& arrivals,
                  Progress& progress) {
  if (!arrivals.add(t)) return;
  progress.clear();
  log_warning(
      fmt::format("{}: a rollout is left out: {}: {}", where, to_string(t.fault), t.fault_detail));
}

std::string watch_endpoints(EndpointWatch& watch, const RolloutServer& server, Progress& progress) {
  for (const std::string& news : watch.look(server.workers())) {
    progress.clear();
    log_warning(news);
  }
  const std::string waiting = watch.waiting();
  return waiting.empty() ? waiting : "  " + waiting;
}

Trial::Trial(const TrainSetup& setup, const ModelSpec& spec, RolloutServer& server,
             const fs::path& journal, std::function<bool()> stop_requested)
    : server_(server),
      stop_requested_(std::move(stop_requested)),
      journal_(without_file(journal), setup.about),
      progress_(setup.live_progress) {
  StoredWeights(setup.model_dir, spec, policy_dtype(setup.dtype)).check_values();
  if (setup.lead_engine) {
    sampler_ = std::make_unique<LeadSampler>(spec, *setup.lead_engine, server);
    const fs::path adapter = setup.lora ? setup.lora->adapter : fs::path();
    sampler_->load(0, stored_policy(setup.model_dir, spec, adapter).weights);
  } else {
    server_.publish(0, [](std::span<std::byte>) {});
  }
}

std::vector<Collected> Trial::sample(std::span<const Assignment> plan, const std::string& what) {
  Arrivals arrivals;
  Clock::time_point begin = Clock::time_point::max(), end;
  const auto arrived = [&](const Trajectory& t) {
    const auto lasted = std::chrono::duration<double>(t.wall_time_s);
    end = Clock::now();
    begin = std::min(begin, end - std::chrono::duration_cast<Clock::duration>(lasted));
    note_arrival(t, what, arrivals, progress_);
  };
  const auto collected = Collector(server_, journal_).collect(plan, arrived, [&] {
    const std::string waiting = watch_endpoints(endpoints_, server_, progress_);
    progress_.show(fmt::format("{} {}/{}  in flight {}{}{}", what, arrivals.count(), plan.size(),
                               server_.in_flight(), waiting, arrivals.left_out()));
    return stop_requested_() ? Collecting::kLeave : Collecting::kOn;
  });
  progress_.finish();
  journal_.commit();
  if (collected.empty()) throw Error("stopped on request", "start it again", ExitCode::kStopped);
  refuse_if_all_lost(collected, "the " + what + " tasks");
  seconds_ += seconds_between(begin, end);
  return collected;
}

}  // namespace rollcall
