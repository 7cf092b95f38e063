// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trainer/metrics.h"
#include "trainer/train_options.h"

namespace rollcall {

struct Alarm {
  std::string name;  // of its rule in `alarms:`
  std::string text;  // what was seen, with numbers
  std::string what_to_do;
  AlarmAction action = AlarmAction::kWarn;
  bool of_evaluation = false;  // else of a step
};

// Looks at the metrics of each step for what usually goes before a run that fails. Knows nothing
// but what was added, so that a resumed run goes on from metrics.jsonl. Single thread.
class AlarmWatch {
 public:
  explicit AlarmWatch(const AlarmOptions& options) : options_(options) {}

  // A line of metrics, of a step or an evaluation, in order. The alarms that begin with it.
  std::vector<Alarm> add(const MetricList&);

  // For a run that is started again: the alarms that go on and should stop it, which are news
  // again.
  std::vector<Alarm> forget_stops();

  // Those that go on, as metrics: "alarm.NAME" is 1.
  MetricList metrics() const;

 private:
  struct Step {  // NaN, of which no rule is met, where the line had none
    double signal_share, limit_share, entropy, reward_mean, reward_std, rollouts, pass_rate;
  };
  void judge(const char* name, const AlarmRule&, bool met, std::string text,
             const char* what_to_do);
  void look_at_step(const MetricList&);
  void look_at_evaluation(const MetricList&);
  void look_at_signal();
  void look_at_policy(const MetricList&);
  void look_at_rewards();

  AlarmOptions options_;
  std::deque<Step> steps_;  // the latest
  std::optional<double> first_entropy_;
  std::optional<std::pair<double, double>>
      first_graders_;  // pass@1 by each, of the first evaluation
  std::map<std::string, Alarm> active_;
  std::vector<Alarm> news_;
  bool evaluation_ = false;  // what is being looked at
};

}  // namespace rollcall
