// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/arrivals.h"
#include "trainer/collector.h"
#include "trainer/endpoint_watch.h"
#include "trainer/journal.h"
#include "trainer/lead_sampler.h"
#include "trainer/progress.h"
#include "trainer/training_loop.h"

namespace rollcall {

// Counts an arrival; warns of the first fault of each reason.
void note_arrival(const Trajectory&, const std::string& where, Arrivals&, Progress&);

// What the run waits for where it is an endpoint, as a clause for the progress line; tells the log
// of what changed.
std::string watch_endpoints(EndpointWatch&, const RolloutServer&, Progress&);

// Rollouts of a policy that is not trained: an evaluation, or what is found out before a run. The
// workers load it themselves (WorkerSetup::loads_model), or the engine of the setup does. Single
// thread.
class Trial {
 public:
  // Looks at the weights, has version 0 of them sampled wherever that is, and begins the journal
  // anew.
  Trial(const TrainSetup&, const ModelSpec&, RolloutServer&, const std::filesystem::path& journal,
        std::function<bool()> stop_requested);

  // In the order given, journalled and committed. `what` they are, for a person. Throws Error
  // (kStopped) if it shall stop, (kNoEndpoint) if the infrastructure lost every rollout.
  std::vector<Collected> sample(std::span<const Assignment>, const std::string& what);

  // Of the rollouts so far, from the first one's start to the last one's end, one sample() after
  // the other. Without the time in which workers load the policy.
  double seconds() const { return seconds_; }

 private:
  RolloutServer& server_;
  std::function<bool()> stop_requested_;
  std::unique_ptr<LeadSampler> sampler_;  // null: workers sample
  Journal journal_;
  Progress progress_;
  EndpointWatch endpoints_;
  double seconds_ = 0;
};

}  // namespace rollcall
