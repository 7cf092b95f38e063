// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "trainer/estimate_json.h"
#include "trainer/preflight.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

ordered_json sampled_json(const Preflight& p) {
  return {{"tasks", p.learnability.tasks},
          {"samples", p.learnability.samples},
          {"rollouts", p.planned},
          {"rounds", p.rounds},
          {"graded", p.learnability.rollouts},
          {"passed", p.learnability.passed},
          {"left_out", p.left_out},
          {"seconds", p.seconds},
          {"workers", p.workers},
          {"in_flight", p.in_flight}};
}

ordered_json rise_json(const Rise& r) {
  return {{"k", r.k},
          {"before", r.before},
          {"pass_gain", number_json(r.pass_gain)},
          {"pass_ratio", number_json(r.pass_ratio)},
          {"best_gain", number_json(r.best_gain)},
          {"goes_on", r.goes_on}};
}

ordered_json pass_rates_json(const Learnability& l) {
  ordered_json json{
      {"share_zero", l.share_zero},
      {"share_between", l.share_between},
      {"share_one", l.share_one},
      {"share_mixed_rewards", l.share_mixed},
      {"bound_95", l.pass_rate_bound ? ordered_json(*l.pass_rate_bound) : ordered_json()},
      {"histogram", ordered_json::array()}};
  for (const RateBin& bin : l.histogram)
    json["histogram"].push_back({{"above", bin.low}, {"to", bin.high}, {"tasks", bin.tasks}});
  return json;
}

ordered_json signal_json(const Learnability& l) {
  ordered_json json{{"per_rollout", estimate_json(l.signal)}, {"groups", ordered_json::array()}};
  for (const GroupSignal& g : l.groups)
    json["groups"].push_back({{"group_size", g.group_size},
                              {"share", estimate_json(g.share)},
                              {"extrapolated", g.extrapolated}});
  return json;
}

ordered_json forecast_json(const Forecast& f) {
  return {{"rollouts_per_step", number_json(f.rollouts_per_step)},
          {"signal_per_step", number_json(f.signal_per_step)},
          {"informative_groups_share", number_json(f.informative_share)},
          {"rollouts_to_first_signal", estimate_json(f.rollouts_to_first_signal)},
          {"hours_to_first_signal", number_json(f.hours_to_first_signal)},
          {"rollouts_of_run", number_json(f.rollouts_of_run)},
          {"hours_of_run", number_json(f.hours_of_run)}};
}

ordered_json plan_json(const Preflight& p, const PreflightJudgement& j) {
  return {{"steps", p.run.steps},
          {"workers", p.run.workers},
          {"in_flight", p.run.in_flight()},
          {"hours", p.run.hours > 0 ? ordered_json(p.run.hours) : ordered_json()},
          {"rollouts_per_second", number_json(p.rollouts_per_second())},
          {"as_planned", forecast_json(j.as_planned)},
          {"as_advised", forecast_json(j.as_advised)}};
}

ordered_json endpoints_json(const Preflight& p) {
  ordered_json list = ordered_json::array();
  for (const EndpointUse& e : p.endpoints)
    list.push_back({{"name", e.name},
                    {"calls", e.calls},
                    {"errors", e.errors},
                    {"retries", e.retries},
                    {"seconds_p50", e.seconds_p50},
                    {"seconds_p95", e.seconds_p95}});
  return list;
}

ordered_json canaries_json(const Preflight& p) {
  ordered_json list = ordered_json::array();
  for (const Canary& c : p.canaries)
    list.push_back(
        {{"name", c.name}, {"graded", c.graded}, {"passed", c.passed}, {"faults", c.faults}});
  return list;
}

ordered_json regrading_json(const RepeatedGrading& r) {
  return {{"transcripts", r.transcripts},     {"times", r.times},
          {"scores_differ", r.scores_differ}, {"first_differs", r.first_differs},
          {"disagreement", r.disagreement},   {"faults", r.faults}};
}

ordered_json disk_json(const DiskNeed& d) {
  return {{"journal_bytes", number_json(d.journal)},
          {"checkpoint_bytes", d.checkpoint},
          {"checkpoints_bytes", d.checkpoints},
          {"export_bytes", d.exported},
          {"all_bytes", number_json(d.all())},
          {"free_bytes", d.free},
          {"bytes_per_second", number_json(d.bytes_per_second)},
          {"seconds_of_a_checkpoint", number_json(d.checkpoint_seconds)}};
}

}  // namespace

std::string preflight_json(const Preflight& p, const PreflightJudgement& j) {
  const Learnability& l = p.learnability;
  const ordered_json json{{"verdict", to_string(j.verdict)},
                          {"reasons", j.reasons},
                          {"warnings", j.warnings},
                          {"set", j.advice.settings},
                          {"run", {{"name", p.name}, {"model", p.model}, {"dataset", p.dataset}}},
                          {"sampled", sampled_json(p)},
                          {"pass_at_k", curve_json(l.curve)},
                          {"rise", rise_json(l.rise)},
                          {"pass_rates", pass_rates_json(l)},
                          {"signal", signal_json(l)},
                          {"plan", plan_json(p, j)},
                          {"endpoints", endpoints_json(p)},
                          {"canaries", canaries_json(p)},
                          {"regrading", regrading_json(p.regrading)},
                          {"disk", disk_json(p.disk)}};
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace rollcall
