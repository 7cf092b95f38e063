// SPDX-License-Identifier: Apache-2.0
#include "trainer/replay_comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string_view>

#include "trainer/metric_names.h"

namespace rollcall {
namespace {

std::string text_of(double value) { return fmt::format("{}", value); }
std::string text_of(float value) { return fmt::format("{}", value); }
std::string text_of(std::int64_t value) { return fmt::format("{}", value); }
std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(const std::string& value) { return value; }

template <class T>
bool same(const T& a, const T& b) {
  return a == b;
}
bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

class Comparer {
 public:
  template <class T>
  void add(const std::string& what, const T& recorded, const T& replayed) {
    ++result_.compared;
    if (!same(recorded, replayed))
      result_.differences.push_back({what, text_of(recorded), text_of(replayed)});
  }

  // Counts as one; tells how many differ and the first.
  void add(const std::string& what, std::span<const float> recorded,
           std::span<const float> replayed) {
    if (recorded.size() != replayed.size())
      return add("length of " + what, static_cast<std::int64_t>(recorded.size()),
                 static_cast<std::int64_t>(replayed.size()));
    ++result_.compared;
    std::size_t first = recorded.size(), count = 0;
    for (std::size_t i = recorded.size(); i-- > 0;) {
      if (std::bit_cast<std::uint32_t>(recorded[i]) == std::bit_cast<std::uint32_t>(replayed[i]))
        continue;
      first = i;
      ++count;
    }
    if (count > 0)
      result_.differences.push_back({fmt::format("{} ({} of {} differ, the first is number {})",
                                                 what, count, recorded.size(), first),
                                     text_of(recorded[first]), text_of(replayed[first])});
  }

  void add(const std::string& what, const OptimizedWeights& recorded,
           const OptimizedWeights& replayed) {
    add(what + ", AdamW steps", recorded.steps, replayed.steps);
    add(what, recorded.masters, replayed.masters);
    add(what + ", first moment", recorded.first_moment, replayed.first_moment);
    add(what + ", second moment", recorded.second_moment, replayed.second_moment);
  }

  ReplayComparison take() { return std::move(result_); }

 private:
  void add(const std::string& what, const SharedFloats& recorded, const SharedFloats& replayed) {
    add(what, std::span<const float>(recorded), std::span<const float>(replayed));
  }

  ReplayComparison result_;
};

bool depends_on_the_machine(std::string_view name) {
  return name.starts_with("seconds_") || name == metric::kTokensPerSecond ||
         name == metric::kWorkers || name == metric::kWorkersLost;
}

}  // namespace

ReplayComparison compare_uses(std::span<const UpdateUse> recorded,
                              std::span<const UpdateUse> replayed) {
  Comparer c;
  c.add("rollouts", static_cast<std::int64_t>(recorded.size()),
        static_cast<std::int64_t>(replayed.size()));
  for (std::size_t i = 0; i < std::min(recorded.size(), replayed.size()); ++i) {
    const UpdateUse &a = recorded[i], &b = replayed[i];
    c.add(fmt::format("row of rollout {}", i), a.row, b.row);
    c.add(fmt::format("reward of row {}", a.row), a.reward, b.reward);
    c.add(fmt::format("advantage of row {}", a.row), a.advantage, b.advantage);
    c.add(fmt::format("row {} in the loss", a.row), a.in_loss, b.in_loss);
  }
  return c.take();
}

ReplayComparison compare_metrics(const MetricsLine& recorded, const MetricList& replayed) {
  Comparer c;
  for (const auto& [name, value] : replayed) {
    if (depends_on_the_machine(name)) continue;
    const auto found = std::ranges::find(recorded.values, name, &MetricList::value_type::first);
    // Not finite is null in the file, and NaN again when it is read.
    if (found != recorded.values.end())
      c.add(name, found->second, std::isfinite(value) ? value : std::nan(""));
  }
  return c.take();
}

ReplayComparison compare_states(const TrainState& recorded, const TrainState& replayed) {
  Comparer c;
  c.add("state of the batch", recorded.sampler, replayed.sampler);
  c.add("weights", recorded.policy, replayed.policy);
  if (!recorded.critic || !replayed.critic) return c.take();
  c.add("critic", recorded.critic->trunk, replayed.critic->trunk);
  c.add("critic's head", recorded.critic->head, replayed.critic->head);
  return c.take();
}

}  // namespace rollcall
