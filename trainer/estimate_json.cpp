// SPDX-License-Identifier: Apache-2.0
#include "trainer/estimate_json.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace rollcall {

using nlohmann::ordered_json;

ordered_json number_json(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json();
}

ordered_json estimate_json(const Estimate& e) {
  return {{"mean", number_json(e.mean)},
          {"low_95", number_json(e.low_95)},
          {"high_95", number_json(e.high_95)}};
}

ordered_json curve_json(std::span<const CurvePoint> curve) {
  ordered_json points = ordered_json::array();
  for (const CurvePoint& p : curve)
    points.push_back({{"k", p.k},
                      {"tasks", p.tasks},
                      {"pass", estimate_json(p.pass)},
                      {"best", estimate_json(p.best)}});
  return points;
}

std::string percent_text(const Estimate& e) {
  if (!std::isfinite(e.mean)) return "unknown";
  return fmt::format("{:.1f} % ({:.1f} - {:.1f})", 100 * e.mean, 100 * e.low_95, 100 * e.high_95);
}

std::string curve_text(std::span<const CurvePoint> curve) {
  std::string text =
      fmt::format("  {:>6}  {:<24}  {:<26}  {:>5}\n", "k", "pass@k", "best score of k", "tasks");
  for (const CurvePoint& p : curve)
    text += fmt::format(
        "  {:>6}  {:<24}  {:<26}  {:>5}\n", p.k, percent_text(p.pass),
        fmt::format("{:.3f} ({:.3f} - {:.3f})", p.best.mean, p.best.low_95, p.best.high_95),
        p.tasks);
  return text;
}

}  // namespace rollcall
