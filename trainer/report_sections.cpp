// SPDX-License-Identifier: Apache-2.0
#include "trainer/report_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "trainer/metric_names.h"

namespace rollcall {
namespace {

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

std::string interval_text(const Interval& i) {
  return fmt::format("{:.1f} to {:.1f} %", 100 * i.low, 100 * i.high);
}

std::string status_pill(const RunFacts& run) {
  if (!run.result || run.result->status == RunStatus::kRunning) {
    return R"(<span class="pill warn">running, or cut off</span>)";
  }
  switch (run.result->status) {
    case RunStatus::kDone:
      return R"(<span class="pill good">done</span>)";
    case RunStatus::kStopped:
      return R"(<span class="pill warn">stopped, resumable</span>)";
    default:
      return R"(<span class="pill bad">failed</span>)";
  }
}

std::string tile(const std::string& value, const std::string& name) {
  return "<div class=\"tile\"><b>" + value + "</b><span>" + name + "</span></div>";
}

double sum_of(const RunFacts& run, const char* metric) {
  double sum = 0;
  for (const ChartPoint& p : points_of(run, metric)) sum += std::isfinite(p.y) ? p.y : 0;
  return sum;
}

std::string duration(double seconds) {
  if (seconds < 60) return fmt::format("{:.0f} s", seconds);
  if (seconds < 3600) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

std::int64_t steps_done(const RunFacts& run) {
  std::int64_t done = run.result ? run.result->step : 0;
  for (const MetricsLine& line : run.metrics) done = std::max(done, line.step);
  return done;
}

std::string tiles(const RunFacts& run) {
  const auto count = [](double value) { return format_value(value, ChartUnit::kNumber); };
  const auto faulted = std::count_if(run.train.begin(), run.train.end(),
                                     [](const RolloutFacts& r) { return !r.graded(); });
  double tokens = 0;
  for (const RolloutFacts& rollout : run.train) tokens += static_cast<double>(rollout.tokens);
  return "<div class=\"tiles\">" + tile(std::to_string(steps_done(run)), "optimizer steps") +
         tile(count(static_cast<double>(run.train.size())), "training rollouts") +
         tile(count(static_cast<double>(run.valid.size())), "held-out rollouts") +
         tile(count(static_cast<double>(run.calls.size())), "tool calls in training") +
         tile(count(tokens), "tokens, prompts and tools included") +
         tile(count(sum_of(run, metric::kTokensSampled)), "tokens sampled") +
         tile(count(static_cast<double>(faulted)), "rollouts left out: faulted or masked") +
         tile(duration(sum_of(run, metric::kSecondsStep)), "in training steps") + "</div>";
}

std::string headline(const std::vector<EvalFacts>& evaluations) {
  const Interval& before = evaluations.front().pass_at_1;
  std::string html = "<div class=\"card\"><span class=\"eyebrow\">Held-out pass@1</span>";
  if (evaluations.size() == 1) {
    return html + fmt::format(
                      "<div class=\"change\"><span class=\"to\">{}</span></div>"
                      "<div class=\"soft\">after {} steps, {} tasks; 95 % interval {}</div></div>",
                      percent(before.mean), evaluations[0].step, before.tasks,
                      interval_text(before));
  }
  const Interval& after = evaluations.back().pass_at_1;
  const Interval change = paired_change(evaluations.front(), evaluations.back());
  const char* css = change.low > 0 ? "up" : change.high < 0 ? "down" : "";
  html += fmt::format(
      "<div class=\"change\"><span class=\"from\">{}</span><span class=\"arrow\">→</span>"
      "<span class=\"to\">{}</span></div>",
      percent(before.mean), percent(after.mean));
  html += fmt::format(
      "<div><b class=\"{}\">{:+.1f} points</b> on the same {} tasks, 95 % interval {:+.1f} to "
      "{:+.1f}</div>",
      css, 100 * change.mean, change.tasks, 100 * change.low, 100 * change.high);
  return html + fmt::format("<div class=\"soft\">step {}: {} &nbsp;·&nbsp; step {}: {}</div></div>",
                            evaluations.front().step, interval_text(before),
                            evaluations.back().step, interval_text(after));
}

std::string no_headline(const RunFacts& run) {
  return fmt::format(
      "<div class=\"card\"><span class=\"eyebrow\">Held-out pass@1</span><p class=\"soft\">No "
      "held-out evaluation is in the journal{}.</p></div>",
      run.rows == 0 ? ", which has no rows" : "");
}

std::string notice(const std::string& text, bool bad = false) {
  return fmt::format("<div class=\"notice{}\">{}</div>", bad ? " bad" : "", text);
}

// The alarms of the run, with the steps in which they went on.
void add_alarms(const RunFacts& run, std::vector<std::string>& out) {
  struct Span {
    std::int64_t first = 0, last = 0, lines = 0;
  };
  std::map<std::string, Span> alarms;
  const std::string prefix = std::string(metric::kAlarm) + ".";
  for (const MetricsLine& line : run.metrics) {
    for (const auto& [name, value] : line.values) {
      if (!name.starts_with(prefix)) continue;
      Span& span =
          alarms.try_emplace(name.substr(prefix.size()), Span{line.step, 0, 0}).first->second;
      span.last = line.step;
      ++span.lines;
    }
  }
  for (const auto& [name, span] : alarms)
    out.push_back(
        notice(fmt::format("Alarm {}: from step {} to {}, {} times. docs/alarms.md says "
                           "what it means and what to do.",
                           escape_html(name), span.first, span.last, span.lines)));
}

// What a person should look at, with the limit that was crossed.
std::vector<std::string> notices_of(const RunFacts& run, const std::vector<StepFacts>& steps) {
  std::vector<std::string> out;
  if (run.result && !run.result->message.empty()) {
    out.push_back(
        notice(escape_html(run.result->message), run.result->status == RunStatus::kFailed));
  }
  if (const double skipped = sum_of(run, metric::kSkippedUpdates); skipped > 0) {
    out.push_back(notice(
        fmt::format("{:.0f} updates were skipped: their gradient was not finite.", skipped), true));
  }
  if (const double lost = sum_of(run, metric::kWorkersLost); lost > 0) {
    out.push_back(notice(
        fmt::format("{:.0f} workers were lost: what they had in flight was made again by others. "
                    "log/rank-0.log says when and why.",
                    lost)));
  }
  add_alarms(run, out);
  double rollouts = 0, faults = 0, groups = 0, signal = 0;
  const Tenths tenths = tenths_of(steps);
  for (const StepFacts& step : steps) {
    rollouts += step.rollouts;
    faults += step.faults;
    if (step.step < tenths.last_begin) continue;
    groups += step.groups;
    signal += step.groups_signal;
  }
  if (rollouts > 0 && faults > 0.05 * rollouts) {
    out.push_back(
        notice(fmt::format("{} of the training rollouts ended in a fault (more than 5 %): the "
                           "infrastructure costs you that much of the run.",
                           percent(faults / rollouts))));
  }
  // A critic learns from every group.
  const bool by_group = points_of(run, metric::kExplainedVariance).empty();
  if (by_group && groups > 0 && signal < 0.2 * groups) {
    out.push_back(
        notice(fmt::format("At the end only {} of the groups carried a gradient (less than 20 %): "
                           "the tasks are too easy or too hard by now.",
                           percent(signal / groups))));
  }
  double gap = 0;
  for (const ChartPoint& p : points_of(run, metric::kLogprobGapMax)) gap = std::max(gap, p.y);
  if (gap > 1) {
    out.push_back(
        notice(fmt::format("Sampler and learner disagreed by up to {:.2f} nats on a token.", gap)));
  }
  return out;
}

ChartSeries series_of(const std::vector<StepFacts>& steps, const std::string& name,
                      const std::string& color, double StepFacts::*value) {
  ChartSeries series{.name = name, .color = color, .points = {}};
  for (const StepFacts& step : steps) {
    series.points.push_back({.x = static_cast<double>(step.step), .y = step.*value});
  }
  return series;
}

ChartSeries held_out(const std::vector<EvalFacts>& evaluations) {
  ChartSeries series{.name = "held-out pass@1", .color = "c2", .points = {}, .markers = true};
  for (const EvalFacts& e : evaluations) {
    series.points.push_back({.x = static_cast<double>(e.step),
                             .y = e.pass_at_1.mean,
                             .low = e.pass_at_1.low,
                             .high = e.pass_at_1.high});
  }
  return series;
}

// One kind of group as a share of all groups of the step.
ChartSeries group_share(const std::vector<StepFacts>& steps, const std::string& name,
                        const std::string& color, double StepFacts::*value) {
  ChartSeries series{.name = name, .color = color, .points = {}};
  for (const StepFacts& step : steps) {
    series.points.push_back({.x = static_cast<double>(step.step),
                             .y = step.groups > 0 ? step.*value / step.groups : 0});
  }
  return series;
}

Chart percentiles(const std::string& title, ChartUnit unit, const std::vector<StepFacts>& steps,
                  double StepFacts::*p50, double StepFacts::*p95) {
  return {.title = title,
          .unit = unit,
          .series = {series_of(steps, "P95", "c3", p95), series_of(steps, "P50", "c1", p50)}};
}

Chart metric_chart(const RunFacts& run, const std::string& title, ChartUnit unit,
                   const std::vector<std::pair<std::string, const char*>>& names) {
  Chart chart{.title = title, .unit = unit, .series = {}};
  const char* const colors[] = {"c1", "c3", "c4"};
  for (const auto& [name, metric] : names) {
    chart.series.push_back({.name = name,
                            .color = colors[chart.series.size() % std::size(colors)],
                            .points = points_of(run, metric)});
  }
  return chart;
}

std::string time_split(const RunFacts& run) {
  const std::pair<const char*, const char*> parts[] = {{"rollouts", metric::kSecondsRollout},
                                                       {"update", metric::kSecondsUpdate},
                                                       {"publish weights", metric::kSecondsPublish},
                                                       {"journal", metric::kSecondsJournal}};
  const double total = sum_of(run, metric::kSecondsStep);
  if (total <= 0) return "";
  std::string bar, keys;
  int color = 0;
  for (const auto& [name, metric] : parts) {
    const double share = sum_of(run, metric) / total;
    ++color;
    bar += fmt::format("<i class=\"c{}\" style=\"width:{:.2f}%\"></i>", color, 100 * share);
    keys += fmt::format("<span class=\"key\"><i class=\"c{}\"></i>{} {}</span>", color, name,
                        percent(share));
  }
  return "<div class=\"card\"><b>Where a step's time goes</b><div class=\"split\">" + bar +
         "</div><div class=\"keys\">" + keys + "</div></div>";
}

}  // namespace

Tenths tenths_of(const std::vector<StepFacts>& steps) {
  if (steps.empty()) return {};
  const std::size_t tenth = std::max<std::size_t>(1, steps.size() / 10);
  return {.first_end = steps[tenth - 1].step + 1, .last_begin = steps[steps.size() - tenth].step};
}

std::vector<ChartPoint> points_of(const RunFacts& run, const std::string& metric) {
  std::vector<ChartPoint> points;
  for (const MetricsLine& line : run.metrics) {
    for (const auto& [name, value] : line.values) {
      if (name == metric) points.push_back({.x = static_cast<double>(line.step), .y = value});
    }
  }
  return points;
}

std::string header_section(const RunFacts& run, const std::vector<EvalFacts>& evaluations) {
  return "<div class=\"eyebrow\">Rollcall run</div><div class=\"top\"><h1>" +
         escape_html(run.name) + "</h1>" + status_pill(run) + "</div><div class=\"hero\">" +
         (evaluations.empty() ? no_headline(run) : headline(evaluations)) + tiles(run) + "</div>";
}

std::string notices_section(const RunFacts& run, const std::vector<StepFacts>& steps) {
  const std::vector<std::string> notices = notices_of(run, steps);
  if (notices.empty()) return "";
  std::string html = "<h2>To look at</h2>";
  for (const std::string& text : notices) html += text;
  return html;
}

std::string learning_section(const RunFacts& run, const std::vector<StepFacts>& steps,
                             const std::vector<EvalFacts>& evaluations) {
  if (steps.empty() && evaluations.empty()) return "";
  Chart reward{.title = "Pass rate", .unit = ChartUnit::kPercent, .series = {}};
  reward.series.push_back(series_of(steps, "training pass rate", "c1", &StepFacts::pass_rate));
  if (!evaluations.empty()) reward.series.push_back(held_out(evaluations));
  const Chart signal{
      .title = "Groups by outcome",
      .unit = ChartUnit::kPercent,
      .series = {group_share(steps, "all failed", "bad", &StepFacts::groups_all_fail),
                 group_share(steps, "mixed", "c1", &StepFacts::groups_signal),
                 group_share(steps, "all passed", "good", &StepFacts::groups_all_pass)}};
  const Chart mean{.title = "Mean reward",
                   .unit = ChartUnit::kNumber,
                   .series = {series_of(steps, "reward", "c1", &StepFacts::reward_mean)}};
  const std::string critic =
      line_chart(metric_chart(run, "Critic: explained variance of the returns", ChartUnit::kNumber,
                              {{"explained variance", metric::kExplainedVariance}}));
  const char* lesson = critic.empty() ? " Only groups whose rewards differ teach anything." : "";
  return fmt::format(
             "<h2>Learning</h2><p class=\"lead\">Thin lines are single steps, thick ones a moving "
             "average.{}</p><div class=\"grid\">",
             lesson) +
         line_chart(reward) + stacked_chart(signal) + line_chart(mean) +
         line_chart(metric_chart(run, "Entropy of the policy, nats a token", ChartUnit::kNumber,
                                 {{"entropy", metric::kEntropyMean}})) +
         critic + "</div>";
}

std::string speed_section(const RunFacts& run, const std::vector<StepFacts>& steps) {
  if (steps.empty()) return "";
  return "<h2>Rollouts and speed</h2><div class=\"grid\">" +
         line_chart(percentiles("Rollout latency", ChartUnit::kSeconds, steps,
                                &StepFacts::seconds_p50, &StepFacts::seconds_p95)) +
         line_chart(percentiles("Tokens a rollout", ChartUnit::kNumber, steps,
                                &StepFacts::tokens_p50, &StepFacts::tokens_p95)) +
         line_chart(metric_chart(
             run, "Step time", ChartUnit::kSeconds,
             {{"step", metric::kSecondsStep}, {"of it rollouts", metric::kSecondsRollout}})) +
         line_chart(metric_chart(run, "Sampling speed", ChartUnit::kNumber,
                                 {{"tokens a second", metric::kTokensPerSecond}})) +
         "</div><p></p>" + time_split(run);
}

constexpr double kFewestNoiseSteps = 10;  // of which each says little

// Of the run's second half, in a sentence; empty where too few steps say.
std::string noise_scale(const RunFacts& run) {
  const auto noise = points_of(run, metric::kGradNoiseVariance);
  const auto signal = points_of(run, metric::kGradSignalSquared);
  double sums[2] = {}, steps = 0;
  for (std::size_t i = noise.size() / 2; i < std::min(noise.size(), signal.size()); ++i) {
    if (!std::isfinite(noise[i].y) || !std::isfinite(signal[i].y)) continue;
    sums[0] += noise[i].y;
    sums[1] += signal[i].y;
    ++steps;
  }
  if (steps < kFewestNoiseSteps || sums[1] <= 0) return "";
  return fmt::format(
      "<p class=\"soft\">Gradient noise scale over the last {:.0f} steps: about {:.2g} rollouts "
      "with "
      "a signal. Steps far below it are mostly noise; far above it more updates of fewer rollouts "
      "would learn as much.</p>",
      steps, sums[0] / sums[1]);
}

std::string agreement_section(const RunFacts& run) {
  const std::string gap = line_chart(
      metric_chart(run, "Gap of log-probabilities, nats", ChartUnit::kNumber,
                   {{"largest", metric::kLogprobGapMax}, {"mean", metric::kLogprobGapMean}}));
  const std::string norm = line_chart(metric_chart(run, "Gradient norm (L2)", ChartUnit::kNumber,
                                                   {{"before clipping", metric::kGradNormL2}}));
  if (gap.empty() && norm.empty()) return "";
  return "<h2>Sampler and learner</h2><p class=\"lead\">The same tokens, scored by the engine that "
         "sampled them and by "
         "the learner that trains on them: a gap means that the two do not run the same model.</p>"
         "<div class=\"grid\">" +
         gap + norm + "</div>" + noise_scale(run);
}

}  // namespace rollcall
